// What erank writes it reads back the same, whatever the ids and texts are.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/data/output_text.h"
#include "erank/data/records.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

// Texts of what ids are made of, and of what readers trip over.
rc::Gen<std::string> id_gen() {
  const auto piece = rc::gen::weightedOneOf<std::string>(
      {{6, rc::gen::element<std::string>("a", "7", "-", "_", "Q0", "doc", ".txt", "/")},
       {6, rc::gen::element<std::string>("#", "##", "\"", "'", ",", ";", "\\", "\\u", "{", "[", "0",
                                         "1.5", "nan", "query-id", "id", "text", "score", "null")},
       {3, rc::gen::element<std::string>(" ", "\t", "\n", "\r", "\v", "\f", std::string(1, '\0'),
                                         "\x1b[31m", "\x7f", "\xef\xbb\xbf", "\xc2\x85", "\xc2\xa0",
                                         "\xe2\x80\xa8", "\xe2\x80\xae")},
       {3, rc::gen::element<std::string>("\xc3\xa9", "e\xcc\x81", "\xe4\xb8\xad",
                                         "\xf0\x9f\xa6\x94", "\xef\xbf\xbd", "\xef\xbf\xbf")},
       {1, rc::gen::map(rc::gen::inRange<uint32_t>(1, 0x110000), [](uint32_t code) {
          std::string out;
          base::append_utf8(out, code);
          return out;
        })}});
  return rc::gen::map(rc::gen::container<std::vector<std::string>>(piece),
                      [](const std::vector<std::string>& pieces) {
                        std::string out;
                        for (const auto& one : pieces) out += one;
                        return out;
                      });
}

std::vector<std::string> ids_of(size_t least) {
  auto ids = *rc::gen::unique<std::vector<std::string>>(rc::gen::nonEmpty(id_gen()));
  RC_PRE(ids.size() >= least);
  return ids;
}

bool can_be_in_a_run(const std::string& id) {
  return id.find_first_of(" \t\n\v\f\r") == id.npos && !id.starts_with("\xef\xbb\xbf");
}

std::string csv_field(const std::string& field) {
  std::string out = "\"";
  for (const char c : field) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

TEST(RoundTrips, OfRunsGiveTheSameHitsOrTheWriterRefuses) {
  const TestFolder folder;
  EXPECT_TRUE(rc::check("a run is read as it was written", [&] {
    const auto qids = ids_of(1), docids = ids_of(1);
    std::string lines;
    data::Run expected;
    for (const auto& qid : qids) {
      for (size_t i = 0; i < docids.size(); ++i) {
        const std::vector<Hit> hit = {{docids[i], static_cast<double>(docids.size() - i)}};
        const bool good = can_be_in_a_run(qid) && can_be_in_a_run(docids[i]);
        if (!good) {
          std::string unused;
          RC_ASSERT_THROWS_AS(append_trec_lines(unused, qid, hit, "tag"), base::Error);
          continue;
        }
        append_trec_lines(lines, qid, hit, "tag");
        if (expected.hits[qid].empty()) expected.qids.push_back(qid);
        expected.hits[qid].push_back(hit[0]);
      }
    }
    ReadNotes notes;
    const data::Run read = read_run(folder.write("run.txt", lines), &notes);
    RC_ASSERT(read.qids == expected.qids);
    RC_ASSERT(notes.comments == 0);
    for (const auto& qid : read.qids) {
      const auto &hits = read.hits.at(qid), &wanted = expected.hits.at(qid);
      RC_ASSERT(hits.size() == wanted.size());
      for (size_t i = 0; i < hits.size(); ++i) {
        RC_ASSERT(hits[i].docid == wanted[i].docid);
        RC_ASSERT(hits[i].score == wanted[i].score);
      }
    }
  }));
}

TEST(RoundTrips, OfJudgementsGiveTheSameGrades) {
  const TestFolder folder;
  EXPECT_TRUE(rc::check("qrels are read as they were written", [&] {
    const auto qids = ids_of(1), docids = ids_of(1);
    std::string trec, csv = "query-id,corpus-id,score\n";
    int64_t count = 0, in_csv = 0;
    for (const auto& qid : qids)
      for (const auto& docid : docids) {
        const auto grade = std::to_string(count % 4);
        if (can_be_in_a_run(qid) && can_be_in_a_run(docid)) {
          trec += qid + " 0 " + docid + " " + grade + "\n";
          csv += csv_field(qid) + "," + csv_field(docid) + "," + grade + "\r\n";
          ++in_csv;
        }
        ++count;
      }
    for (const auto& path : {folder.write("q.txt", trec), folder.write("q.csv", csv)}) {
      ReadNotes notes;
      const Qrels read = read_qrels(path, &notes);
      RC_ASSERT(notes.comments == 0);
      int64_t found = 0, number = 0;
      for (const auto& qid : qids)
        for (const auto& docid : docids) {
          if (can_be_in_a_run(qid) && can_be_in_a_run(docid)) {
            RC_ASSERT(read.grades.at(qid).at(docid) == number % 4);
            ++found;
          }
          ++number;
        }
      RC_ASSERT(found == in_csv);
    }
  }));
}

TEST(RoundTrips, OfDocumentsGiveTheSameIdsAndTextsInEveryForm) {
  const TestFolder folder;
  EXPECT_TRUE(rc::check("documents are read as they were written", [&] {
    const auto ids = ids_of(1);
    const auto texts = *rc::gen::container<std::vector<std::string>>(ids.size(), id_gen());
    std::string lines, csv = "id,text\n";
    base::Json array = base::Json::array();
    for (size_t i = 0; i < ids.size(); ++i) {
      array.push_back({{"_id", ids[i]}, {"text", texts[i]}});
      lines += base::dump_json(array.back()) + "\n";
      csv += csv_field(ids[i]) + "," + csv_field(texts[i]) + "\n";
    }
    for (const auto& path : {folder.write("c.jsonl", lines), folder.write("c.json", array.dump(2)),
                             folder.write("d.jsonl", array.dump()), folder.write("c.csv", csv)}) {
      ReadNotes notes;
      const auto read = read_documents(path, nullptr, {.notes = &notes});
      RC_ASSERT(read.size() == ids.size());
      RC_ASSERT(notes.repaired + notes.repeated + notes.numbered == 0);
      for (size_t i = 0; i < ids.size(); ++i) {
        RC_ASSERT(read[i].id == ids[i]);
        RC_ASSERT(read[i].text == texts[i]);
      }
    }
  }));
}

#ifdef ERANK_WITH_COMPRESSION
TEST(RoundTrips, OfCompressedOutputGiveTheSameBytes) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 40000; ++i) text += std::to_string(i * 7919) + "\n";
  for (const std::string name : {"a.txt", "a.txt.gz", "a.txt.zst"}) {
    {
      OutputText file(folder.path(name));
      for (size_t i = 0; i < text.size(); i += 70001) {
        file.write(std::string_view(text).substr(i, 70001));
        file.flush();
      }
      file.commit();
    }
    std::string read;
    for_each_line(folder.path(name),
                  [&](std::string_view line, int64_t) { read.append(line).append("\n"); });
    EXPECT_EQ(read, text) << name;
    const std::string stored = base::read_file(folder.path(name));
    EXPECT_EQ(stored.size() < text.size() / 2, name != "a.txt") << name;
    EXPECT_EQ(stored.starts_with("\x1f\x8b"), name.ends_with(".gz"));
    EXPECT_EQ(stored.starts_with("\x28\xb5\x2f\xfd"), name.ends_with(".zst"));
  }
  // Nothing at all is an empty file of its kind too.
  for (const std::string name : {"e.gz", "e.zst"}) {
    OutputText(folder.path(name)).commit();
    EXPECT_FALSE(base::read_file(folder.path(name)).empty()) << name;
    for_each_line(folder.path(name), [](std::string_view, int64_t) { FAIL(); });
  }
}
#endif

}  // namespace
}  // namespace erank::data
