// What people's files have that readers must not trip over in silence: comments, broken encodings,
// header lines, empty beginnings, other programs' forms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/records.h"
#include "erank/data/training_pairs.h"
#include "tests/data/errors.h"
#include "tests/test_folder.h"

#ifdef ERANK_WITH_COMPRESSION
#include <zlib.h>
#endif

namespace erank::data {
namespace {

using base::ErrorKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string utf16(std::string_view ascii, bool little, bool mark) {
  std::string out = !mark ? "" : little ? "\xff\xfe" : "\xfe\xff";
  for (const char c : ascii) {
    if (!little) out += '\0';
    out += c;
    if (little) out += '\0';
  }
  return out;
}

std::string utf32(std::string_view ascii) {
  std::string out;
  for (const char c : ascii) out += std::string(1, c) + std::string(3, '\0');
  return out;
}

std::vector<std::string> texts_of(const std::vector<Document>& documents) {
  std::vector<std::string> out;
  for (const auto& document : documents) out.push_back(document.id + "=" + document.text);
  return out;
}

TEST(Comments, OfRunsAreLinesThatAreNoRecordsAndAreCounted) {
  const TestFolder folder;
  ReadNotes notes;
  const auto path = folder.write("r.txt",
                                 "# made by hand\n"
                                 "#q1 Q0 #d 1 2.5 t\n"
                                 "#q1 Q0 d2 one 1.5 t\n"      // no rank
                                 "# q1 Q0 d3 3 0.5 t\n"       // seven columns: commented out
                                 "#q2\tQ0\tan id\t1\t9\tt\n"  // six by tabs
                                 "# Q0 d4 1 1 t\n");
  const data::Run run = read_run(path, &notes);
  EXPECT_THAT(run.qids, ElementsAre("#q1", "#q2", "#"));
  EXPECT_EQ(run.hits.at("#q1").size(), 1u);
  EXPECT_EQ(run.hits.at("#q1")[0].docid, "#d");
  EXPECT_EQ(run.hits.at("#q2")[0].docid, "an id");
  EXPECT_EQ(notes.comments, 3);
  EXPECT_EQ(told(path, notes), path + ": 3 lines that begin with # and are no records, left out");
  EXPECT_EQ(told(path, {}), "");
}

TEST(Comments, OfJudgementsAreLinesThatAreNoRecordsAndAreCounted) {
  const TestFolder folder;
  ReadNotes notes;
  const Qrels trec = read_qrels(
      folder.write("t", "# by hand\n#q 0 d 1\n# q 0 d 2\n#q 0 e high\n#r\t0\tmy d\t1\n"), &notes);
  EXPECT_THAT(trec.qids, ElementsAre("#q", "#r"));
  EXPECT_EQ(trec.grades.at("#r").at("my d"), 1);
  EXPECT_EQ(notes.comments, 3);
  notes = {};
  const Qrels tsv = read_qrels(
      folder.write("s", "# c\nquery-id\tcorpus-id\tscore\n#q\t#d\t1\n#q\td\n#q\t#d\t1\n"), &notes);
  EXPECT_EQ(tsv.grades.at("#q").at("#d"), 1);
  EXPECT_EQ(notes.comments, 2);
  EXPECT_EQ(notes.repeated, 1);
}

TEST(Encodings, HalfASurrogatePairInJsonIsRepairedAndCounted) {
  const TestFolder folder;
  ReadNotes notes;
  const auto path = folder.write("d.jsonl",
                                 "{\"id\": \"a\", \"text\": \"x\\ud800y\"}\n"
                                 "{\"id\": \"b\", \"text\": \"\\uDC00\"}\n"
                                 "{\"id\": \"c\", \"text\": \"\\ud83e\\udd94\"}\n"
                                 "{\"id\": \"d\", \"text\": \"\\\\ud800\"}\n"
                                 "{\"id\": \"e\", \"text\": \"raw \xff\"}\n"
                                 "{\"id\": \"f\", \"text\": \"\\ud83e\\ud83e\\udd94\"}\n");
  EXPECT_THAT(texts_of(read_documents(path, nullptr, {.notes = &notes})),
              ElementsAre("a=x\xef\xbf\xbdy", "b=\xef\xbf\xbd", "c=\xf0\x9f\xa6\x94", "d=\\ud800",
                          "e=raw \xef\xbf\xbd", "f=\xef\xbf\xbd\xf0\x9f\xa6\x94"));
  EXPECT_EQ(notes.repaired, 4);
  EXPECT_THAT(told(path, notes), HasSubstr("4 records with bytes that are no UTF-8"));
}

TEST(Encodings, BrokenTextsOfEveryFormAreCounted) {
  const TestFolder folder;
  for (const auto& [name, bytes] : std::vector<std::pair<std::string, std::string>>{
           {"t.tsv", "a\tbad \xff\nb\tgood\n"},
           {"t.csv", "id,text\na,bad \xff\nb,good\n"},
           {"t.txt", "bad \xff\ngood\n"},
           {"t.json", "[{\"id\": \"a\", \"text\": \"bad \xff\"}, \"good\"]"}}) {
    ReadNotes notes;
    const auto documents = read_documents(folder.write(name, bytes), nullptr, {.notes = &notes});
    ASSERT_EQ(documents.size(), 2u) << name;
    EXPECT_EQ(documents[0].text, "bad \xef\xbf\xbd") << name;
    EXPECT_EQ(notes.repaired, 1) << name;
  }
  ReadNotes notes;
  const auto pairs = read_training_pairs(
      folder.write("p.jsonl",
                   "{\"qid\":\"1\",\"docid\":\"2\",\"query\":\"\\ud800\",\"text\":\"\xff\","
                   "\"score\":3}\n"),
      nullptr, &notes);
  EXPECT_EQ(pairs.at(0).query, "\xef\xbf\xbd");
  EXPECT_EQ(notes.repaired, 1);
}

TEST(Encodings, IdsThatAreNoUtf8AreRefusedByEveryReader) {
  const TestFolder folder;
  const auto refused = [&](const std::string& name, const std::string& bytes, auto read) {
    const auto path = folder.write(name, bytes);
    const auto message = error_of(ErrorKind::kInvalidInput, [&] { read(path); });
    EXPECT_THAT(message, HasSubstr(name + ":2")) << bytes;
    EXPECT_THAT(message, HasSubstr("no UTF-8")) << bytes;
  };
  const auto documents = [](const std::string& path) { read_documents(path); };
  const auto queries = [](const std::string& path) { read_queries(path); };
  const auto candidates = [](const std::string& path) { read_candidates(path); };
  const auto run = [](const std::string& path) { read_run(path); };
  const auto qrels = [](const std::string& path) { read_qrels(path); };
  const auto scores = [](const std::string& path) { read_pair_scores(path); };
  refused("d.jsonl", "\n{\"id\": \"caf\xe9\", \"text\": \"x\"}\n", documents);
  refused("e.jsonl", "\n{\"id\": \"\\ud800\", \"text\": \"x\"}\n", documents);
  refused("q.jsonl", "\n{\"qid\": \"caf\xe9\", \"query\": \"x\"}\n", queries);
  refused("d.tsv", "\ncaf\xe9\tx\n", documents);
  refused("d.csv", "id,text\ncaf\xe9,x\n", documents);
  refused("c.jsonl",
          "\n{\"qid\":\"1\",\"query\":\"q\",\"hits\":[{\"docid\":\"\xe9\",\"text\":\"x\"}]}",
          candidates);
  refused("r", "q Q0 d 1 2 t\nq Q0 caf\xe9 2 1 t\n", run);
  refused("j", "q 0 d 1\ncaf\xe9 0 d 1\n", qrels);
  refused("k", "query-id,corpus-id,score\ncaf\xe9,d,1\n", qrels);
  refused("s", "\n{\"qid\":\"caf\xe9\",\"docid\":\"1\",\"score\":1}", scores);
}

TEST(Encodings, WideOnesAreRefusedWithOneLine) {
  const TestFolder folder;
  const std::string line = "{\"id\": \"a\", \"text\": \"Air scatters light.\"}\n";
  for (const auto& [bytes, name] : std::vector<std::pair<std::string, std::string>>{
           {utf16(line, true, true), "UTF-16"},
           {utf16(line, false, true), "UTF-16"},
           {utf16(line, true, false), "UTF-16"},
           {utf16(line, false, false), "UTF-16"},
           {utf32(line), "UTF-32"},
           {std::string("\xff\xfe\0\0", 4) + utf32(line), "UTF-32"}}) {
    for (const char* file : {"d.jsonl", "d.txt", "d.tsv"}) {
      const auto path = folder.write(file, bytes);
      const auto message = error_of(ErrorKind::kInvalidInput, [&] { read_documents(path); });
      EXPECT_THAT(message, HasSubstr("is " + name + " text, expected UTF-8"));
      EXPECT_THAT(message, HasSubstr("iconv -f " + name));
    }
  }
  // Zero bytes in a text are no other encoding.
  const auto odd = folder.write("o.txt", std::string("a\0b\0\0c\n", 7) + std::string(100, 'x'));
  EXPECT_EQ(read_documents(odd).at(0).text, std::string("a\0b\0\0c", 6));
}

TEST(HeaderLines, OfTsvNameTheColumnsWhenEveryNameIsKnown) {
  const TestFolder folder;
  EXPECT_THAT(texts_of(read_documents(folder.write("a.tsv", "id\ttext\na\tx\n"))),
              ElementsAre("a=x"));
  EXPECT_THAT(texts_of(read_documents(folder.write(
                  "b.tsv", "docid\tURL\tTitle\tbody\nD1\thttp://x\tSky\tIt is blue.\n"))),
              ElementsAre("D1=Sky It is blue."));
  const auto queries = read_queries(folder.write("q.tsv", "query\tqid\nwhy\t7\n"));
  ASSERT_EQ(queries.size(), 1u);
  EXPECT_EQ(queries[0].id + "=" + queries[0].text, "7=why");
  // A first line with any other word is a record.
  EXPECT_THAT(texts_of(read_documents(folder.write("c.tsv", "id\tsome text\na\tx\n"))),
              ElementsAre("id=some text", "a=x"));
  EXPECT_THAT(texts_of(read_documents(folder.write("d.tsv", "a\ttext\nb\tx\n"))),
              ElementsAre("a=text", "b=x"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput,
                       [&] { read_documents(folder.write("e.tsv", "id\ttitle\ttext\na\tx\n")); }),
              HasSubstr("e.tsv:2: 2 columns, expected 3 as in the first line"));
}

TEST(CommaSeparatedRows, AreReadByTheirHeader) {
  const TestFolder folder;
  ReadNotes notes;
  const auto path = folder.write("a.csv",
                                 "\xef\xbb\xbf\"Title\",id,ignored,TEXT\r\n"
                                 "Sky,a,1,\"It is \"\"blue\"\",\r\nsays one.\"\r\n"
                                 "\r\n"
                                 ",b,2,plain\n"
                                 ",,3,\"\"");
  EXPECT_THAT(texts_of(read_documents(path, nullptr, {.notes = &notes})),
              ElementsAre("a=Sky It is \"blue\",\r\nsays one.", "b=plain", "6="));
  EXPECT_EQ(notes.numbered, 1);
  const auto refused = [&](const std::string& bytes) {
    const auto file = folder.write("b.csv", bytes);
    return error_of(ErrorKind::kInvalidInput, [&] { read_documents(file); });
  };
  EXPECT_THAT(refused("id,text\na,x,y\n"), HasSubstr("b.csv:2: 3 fields, expected 2"));
  EXPECT_THAT(refused("id,text\na,5\" disk\n"), HasSubstr("b.csv:2: a quote inside a field"));
  EXPECT_THAT(refused("id,text\n\na,\"x\" y\n"),
              HasSubstr("b.csv:3: more after the quote that ends a field"));
  EXPECT_THAT(refused("id,text\na,x\nb,\"y\nz\n"), HasSubstr("b.csv:3: a quote that begins here"));
  EXPECT_THAT(refused("id;text\na;x\n"), HasSubstr("no column of texts"));
  EXPECT_THAT(refused("id;text\na;x\n"), HasSubstr("found 'id;text'"));
}

TEST(JsonArrays, AreReadLikeLines) {
  const TestFolder folder;
  const std::string array =
      "[\n  {\"id\": \"a\", \"text\": \"x, ]}\\\" y\"},\n  \"alone\",\n"
      "  {\"_id\": 3, \"title\": \"T\", \"contents\": \"z\"}]\n";
  for (const char* name : {"a.json", "a.jsonl"})
    EXPECT_THAT(texts_of(read_documents(folder.write(name, array))),
                ElementsAre("a=x, ]}\" y", "2=alone", "3=T z"));
  EXPECT_TRUE(read_documents(folder.write("e.json", " [ ] ")).empty());
  const auto refused = [&](const std::string& bytes) {
    const auto file = folder.write("b.json", bytes);
    return error_of(ErrorKind::kInvalidInput, [&] { read_documents(file); });
  };
  EXPECT_THAT(refused("[{\"id\": \"a\", \"text\": \"x\"}"), HasSubstr("has no end"));
  EXPECT_THAT(refused("[\"a\"] [\"b\"]"), HasSubstr("more after the end"));
  EXPECT_THAT(refused("[\"a\", ]"), HasSubstr("element 2"));
  EXPECT_THAT(refused("[\"a\"}]"), HasSubstr("element 1"));
  EXPECT_THAT(refused("[{\"id\": \"a\"}]"), HasSubstr("element 1: no text"));
  EXPECT_THAT(refused("[{\"id\":\"a\",\"text\":\"x\"},{\"id\":\"a\",\"text\":\"y\"}]"),
              HasSubstr("element 2: id 'a' was already in element 1"));
  const auto lists = read_candidates(folder.write(
      "c.json", "[{\"qid\":\"1\",\"query\":\"q\",\"hits\":[{\"docid\":\"d\",\"text\":\"x\"}]}]"));
  EXPECT_EQ(lists.at(0).candidates.at(0).document.text, "x");
  const auto scores =
      read_pair_scores(folder.write("s.json", "[{\"qid\":\"1\",\"docid\":\"2\",\"score\":4}]"));
  EXPECT_EQ(scores.at("1").at("2"), 4);
}

TEST(JsonArrays, LargerThanAnyBufferAreCutAtEachElement) {
  const TestFolder folder;
  std::string array = "[";
  for (int i = 0; i < 30; ++i)
    array += (i ? "," : "") + std::string("{\"text\": \"") +
             std::string(static_cast<size_t>(i) * 30011, '[') + "\", \"more\": [[{}]]}";
  const auto documents = read_documents(folder.write("a.json", array + "]"));
  ASSERT_EQ(documents.size(), 30u);
  EXPECT_EQ(documents[29].text.size(), 29u * 30011);
}

TEST(TextFields, AreTheUsualOnesOrTheChosenOne) {
  const TestFolder folder;
  const auto path =
      folder.write("d.jsonl",
                   "{\"id\": \"a\", \"content\": \"1\", \"blurb\": \"A\"}\n"
                   "{\"pid\": \"b\", \"docid\": \"D\", \"passage\": \"2\", \"blurb\": \"B\"}\n"
                   "{\"id\": \"c\", \"body\": \"3\", \"blurb\": \"C\"}\n"
                   "{\"id\": \"d\", \"text\": \"4\", \"body\": \"5\", \"blurb\": \"D\"}\n"
                   "\"alone\"\n");
  EXPECT_THAT(texts_of(read_documents(path)), ElementsAre("a=1", "b=2", "c=3", "d=4", "5=alone"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput,
                       [&] { read_documents(path, nullptr, {.text_field = "blurb"}); }),
              HasSubstr("d.jsonl:5: a JSON string, expected an object"));
  const auto csv = folder.write("d.csv", "id,text,blurb\na,x,y\n");
  EXPECT_THAT(texts_of(read_documents(csv, nullptr, {.text_field = "blurb"})), ElementsAre("a=y"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput,
                       [&] { read_documents(csv, nullptr, {.text_field = "abstract"}); }),
              HasSubstr("'abstract', found 'id', 'text', 'blurb'"));
  for (const char* name : {"d.txt", "e.tsv"})
    EXPECT_THAT(error_of(ErrorKind::kInvalidInput,
                         [&] {
                           read_documents(folder.write(name, "a\tx\n"), nullptr,
                                          {.text_field = "blurb"});
                         }),
                HasSubstr("--text-field"));
}

TEST(Candidates, OfRankLlmAreReadAsTheyAreAndNullsAreNamed) {
  const TestFolder folder;
  const auto lists = read_candidates(folder.write(
      "r.jsonl",
      "{\"query\": {\"text\": \"why\", \"qid\": 7}, \"candidates\": [{\"docid\": \"a\", \"score\": "
      "2.5, \"doc\": {\"title\": \"T\", \"contents\": \"x\"}}, {\"docid\": 3, \"score\": 1, "
      "\"doc\": {\"text\": \"y\"}}]}\n"));
  ASSERT_EQ(lists.size(), 1u);
  EXPECT_EQ(lists[0].query.id + " " + lists[0].query.text, "7 why");
  ASSERT_EQ(lists[0].candidates.size(), 2u);
  EXPECT_EQ(lists[0].candidates[0].document.text, "T x");
  EXPECT_EQ(lists[0].candidates[1].document.id, "3");
  EXPECT_EQ(lists[0].candidates[1].score, 1.0);
  const auto refused = [&](const std::string& line) {
    const auto path = folder.write("c.jsonl", line);
    return error_of(ErrorKind::kInvalidInput, [&] { read_candidates(path); });
  };
  EXPECT_THAT(refused("{\"qid\":\"1\",\"query\":\"q\",\"hits\":null}"),
              HasSubstr("'hits' is null, expected an array"));
  EXPECT_THAT(refused("{\"qid\":\"1\",\"query\":null,\"hits\":[]}"), HasSubstr("'query' is null"));
  EXPECT_THAT(refused("{\"query\":{\"qid\":\"1\"},\"candidates\":[]}"),
              HasSubstr(": query: no text"));
  EXPECT_THAT(refused("{\"query\":\"q\",\"hits\":[{\"docid\":\"a\",\"text\":null}]}"),
              HasSubstr("hits[0]: 'text' is null"));
}

TEST(Messages, QuoteWhatAFileHoldsOnOneSafeLine) {
  const TestFolder folder;
  const auto path =
      folder.write("r", std::string("q Q0 d\x1b[31m 1 2 t\nq Q0 d\x1b[31m 2 \x1b]0;x\0y t\n", 42));
  const auto message = error_of(ErrorKind::kInvalidInput, [&] { read_run(path); });
  EXPECT_THAT(message, HasSubstr("score '\\x1b]0;x\\x00y' is not a finite number"));
  const auto twice = folder.write("s", "q Q0 d\x1b[31m 1 2 t\nq Q0 d\x1b[31m 2 1 t\n");
  const auto again = error_of(ErrorKind::kInvalidInput, [&] { read_run(twice); });
  EXPECT_THAT(again, HasSubstr("document 'd\\x1b[31m' of query"));
  EXPECT_THAT(again, Not(HasSubstr("\x1b")));
  const auto digits = folder.write("n", "q Q0 d 1 " + std::string(400, '9') + "x t\n");
  EXPECT_LT(error_of(ErrorKind::kInvalidInput, [&] { read_run(digits); }).size(),
            200 + digits.size());
  const auto number = folder.write("n.jsonl", "{\"id\": " + std::string(400, '9') +
                                                  ", \"text\": 1e" + std::string(400, '9') + "}\n");
  EXPECT_LT(error_of(ErrorKind::kInvalidInput, [&] { read_documents(number); }).size(),
            450 + number.size());
}

TEST(Judgements, AsCsvAreReadByTheirHeader) {
  const TestFolder folder;
  for (const char* text : {"query-id,corpus-id,score\nq,\"d,1\",2\n",
                           "score,docid,qid,iteration\r\n2,\"d,1\",q,0\r\n"}) {
    const Qrels qrels = read_qrels(folder.write("q.csv", text));
    EXPECT_EQ(qrels.grades.at("q").at("d,1"), 2) << text;
  }
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput,
                       [&] { read_qrels(folder.write("q.csv", "qid,docid,score\nq,d\n")); }),
              HasSubstr("q.csv:2: 2 fields, expected 3"));
}

#ifdef ERANK_WITH_COMPRESSION
TEST(Gzip, EndsAtZerosAsGzipDoes) {
  const TestFolder folder;
  const auto file = [&](const std::string& after) {
    const auto path = folder.path("a.gz");
    gzFile out = gzopen(path.c_str(), "wb");
    gzputs(out, "one\ntwo\n");
    gzclose(out);
    return folder.write("b.gz", base::read_file(path) + after);
  };
  const auto lines = [](const std::string& path) {
    std::vector<std::string> out;
    for_each_line(path, [&](std::string_view line, int64_t) { out.emplace_back(line); });
    return out;
  };
  EXPECT_THAT(lines(file(std::string(7, '\0'))), ElementsAre("one", "two"));
  EXPECT_THAT(lines(file(std::string(1 << 20, '\0'))), ElementsAre("one", "two"));
  error_of(ErrorKind::kCorrupt, [&] { lines(file(std::string(7, '\0') + "x")); });
}
#endif

}  // namespace
}  // namespace erank::data
