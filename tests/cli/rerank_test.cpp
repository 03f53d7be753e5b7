#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <functional>
#include <sstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

std::string gzip(const std::string& bytes) {
  std::string out(bytes.size() + 200, '\0');
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& bytes) {
  std::string out(ZSTD_compressBound(bytes.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), bytes.data(), bytes.size(), 3));
  return out;
}

const std::string kDocs =
    "{\"id\": \"a\", \"text\": \"Air scatters light.\"}\n"
    "{\"id\": 7, \"title\": \"Sky\", \"text\": \"It is blue.\"}\n"
    "{\"text\": \"no id\"}\n";

// Three documents, two queries and a third without candidates.
class TinyRerankVerb : public Program {
 protected:
  void put_collection() {
    put("corpus.jsonl",
        "{\"_id\": \"d1\", \"text\": \"one\"}\n{\"_id\": \"d2\", \"text\": \"two\"}\n"
        "{\"_id\": \"d3\", \"text\": \"three\"}\n");
    put("queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"first\"}\n{\"_id\": \"q2\", \"text\": \"second\"}\n"
        "{\"_id\": \"q3\", \"text\": \"third\"}\n");
    put("run.trec",
        "q1 Q0 d1 1 3.0 t\nq1 Q0 d2 2 2.0 t\nq1 Q0 d3 3 1.0 t\nq2 Q0 d3 1 9 t\nq2 Q0 d1 2 8 t\n");
  }
  std::vector<std::string> collection() const {
    return {"--queries", path("queries.jsonl"), "--corpus", path("corpus.jsonl"),
            "--run",     path("run.trec"),      "--direct"};
  }
  // After the warning that the third query has no candidates.
  static void expect_fails(const Outcome& outcome, const std::string& part) {
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(lines_of(outcome.err).back(), HasSubstr(part));
  }
  Outcome rerank_collection(const std::vector<std::string>& more) {
    std::vector<std::string> args = collection();
    args.insert(args.end(), more.begin(), more.end());
    return rerank(args);
  }
};

TEST_F(TinyRerankVerb, WritesTheDocumentedLinesOfOneQuery) {
  const Outcome o = rerank(
      {"--query", "sky", "--docs", put("docs.jsonl", kDocs), "--think", "--max-think-tokens", "3"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto lines = json_lines(o.out);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(column(lines, "qid"), Each("1"));
  EXPECT_THAT(column(lines, "rank"), ElementsAre("1", "2", "3"));
  EXPECT_THAT(column(lines, "docid"), UnorderedElementsAre("a", "7", "3"));
  EXPECT_THAT(column(lines, "first_stage_score"), Each("null"));
  EXPECT_THAT(column(lines, "finish"), Each("forced"));
  EXPECT_THAT(column(lines, "new_tokens"), Each("3"));
  size_t at = 0;
  for (const char* key :
       {"qid", "docid", "rank", "score", "integer", "probability", "distribution",
        "first_stage_score", "reasoning", "finish", "flags", "prompt_tokens", "new_tokens"}) {
    const size_t found = o.out.find("\"" + std::string(key) + "\":", at);
    ASSERT_NE(found, std::string::npos) << key;
    at = found;
  }
  EXPECT_EQ(lines[0].size(), 13u);
  EXPECT_EQ(lines[0]["distribution"].size(), 11u);
  EXPECT_TRUE(lines[0]["docid"].is_string());
  EXPECT_TRUE(lines[0]["rank"].is_number_integer());
  EXPECT_GE(lines[0]["score"].get<double>(), lines[1]["score"].get<double>());
  EXPECT_THAT(o.err, HasSubstr("erank: 3 pairs"));
}

TEST_F(TinyRerankVerb, ReadsEveryFormOfTheSameDocuments) {
  const std::string text = "Air scatters light.\nSky It is blue.\nno id\n";
  const std::vector<std::string> fixed = {"--query", "sky", "--direct", "--docs"};
  const auto with = [&](const std::string& docs, const std::string& input = "") {
    std::vector<std::string> args = fixed;
    args.push_back(docs);
    const Outcome o = rerank(args, input);
    EXPECT_EQ(o.exit_code, 0) << o.err;
    return o.out;
  };
  const std::string expected = with(put("docs.jsonl", kDocs));
  EXPECT_EQ(with(put("z.jsonl.gz", gzip(kDocs))), expected);
  EXPECT_EQ(with(put("z.jsonl.zst", zstd(kDocs))), expected);
  EXPECT_EQ(with("-", kDocs), expected);
  EXPECT_EQ(with(put("docs.tsv", "a\tAir scatters light.\n7\tSky\tIt is blue.\n3\tno id\n")),
            expected);
  const std::string numbered = with(put("docs.txt", text));
  EXPECT_EQ(with("-", text), numbered);
  EXPECT_THAT(column(json_lines(numbered), "docid"), UnorderedElementsAre("1", "2", "3"));
}

TEST_F(TinyRerankVerb, GivesTheSameForQueriesAndCorpusABeirFolderAndCandidates) {
  put_collection();
  const Outcome o = rerank_collection({});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  const auto lines = json_lines(o.out);
  EXPECT_THAT(column(lines, "qid"), ElementsAre("q1", "q1", "q1", "q2", "q2"));
  EXPECT_THAT(column(lines, "rank"), ElementsAre("1", "2", "3", "1", "2"));
  EXPECT_THAT(o.err, HasSubstr("warning: 1 query has no candidates and no result: q3"));

  const Outcome beir = rerank({"--beir", path(""), "--run", path("run.trec"), "--direct"});
  EXPECT_EQ(beir.out, o.out) << beir.err;

  put("c.jsonl",
      "{\"qid\": \"q1\", \"query\": \"first\", \"hits\": [{\"docid\": \"d1\", \"text\": \"one\", "
      "\"score\": 3}, {\"docid\": \"d2\", \"text\": \"two\", \"score\": 2}, {\"docid\": \"d3\", "
      "\"text\": \"three\", \"score\": 1}]}\n"
      "{\"qid\": \"q2\", \"query\": \"second\", \"hits\": [{\"docid\": \"d3\", \"text\": "
      "\"three\", \"score\": 9}, {\"docid\": \"d1\", \"text\": \"one\", \"score\": 8}]}\n"
      "{\"qid\": \"q3\", \"query\": \"third\", \"hits\": []}\n");
  const Outcome listed = rerank({"--candidates", path("c.jsonl"), "--direct"});
  EXPECT_EQ(listed.out, o.out) << listed.err;
  EXPECT_THAT(listed.err, HasSubstr("q3"));
}

TEST_F(TinyRerankVerb, WritesATrecRunWhoseScoresFallStrictlyAlsoAsFloats) {
  put("docs.txt", "same\nother\nmore\n");
  const Outcome o = rerank({"--query", "q", "--docs", path("docs.txt"), "--direct", "--score",
                            "integer", "--format", "trec", "--tag", "mine"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  float before = INFINITY;
  int rank = 0;
  for (const auto& line : lines_of(o.out)) {
    std::istringstream in(line);
    std::string qid, q0, docid, tag;
    int column_rank = 0;
    float score = 0;
    in >> qid >> q0 >> docid >> column_rank >> score >> tag;
    EXPECT_EQ(qid, "1");
    EXPECT_EQ(q0, "Q0");
    EXPECT_EQ(column_rank, ++rank);
    EXPECT_EQ(docid, std::to_string(rank));  // all integers are equal: first-stage order
    EXPECT_LT(score, before);
    EXPECT_EQ(tag, "mine");
    before = score;
  }
  EXPECT_EQ(rank, 3);
}

TEST_F(TinyRerankVerb, ShowsATableToPeople) {
  put_collection();
  const Outcome o = rerank_collection({"--format", "table"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  for (const char* part : {"query q1: first", "rank", "docid", "score", "d2", "three"})
    EXPECT_THAT(o.out, HasSubstr(part));
}

TEST_F(TinyRerankVerb, LetsWhatIsBelowTheCutFollowOrDropsIt) {
  put_collection();
  const auto lines = json_lines(rerank_collection({"--top", "1"}).out);
  EXPECT_THAT(column(lines, "docid"), ElementsAre("d1", "d2", "d3", "d3", "d1"));
  EXPECT_THAT(column(lines, "rank"), ElementsAre("1", "2", "3", "1", "2"));
  EXPECT_TRUE(lines[1]["score"].is_null());
  EXPECT_EQ(lines[1]["first_stage_score"], 2.0);
  EXPECT_EQ(base::dump_json(lines[1]["flags"]), "[\"not_reranked\"]");
  EXPECT_EQ(lines_of(rerank_collection({"--top", "1", "--format", "trec"}).out).size(), 5u);
  EXPECT_EQ(lines_of(rerank_collection({"--top", "1", "--tail", "drop"}).out).size(), 2u);
  EXPECT_EQ(lines_of(rerank_collection({"--top", "1000"}).out).size(), 5u);
}

TEST_F(TinyRerankVerb, ScoresOddDocumentsAndFlagsThem) {
  const std::string docs =
      "{\"id\": \"empty\", \"text\": \"\"}\n"
      "{\"id\": \"binary\", \"text\": \"PK\\u0000\\u0001\\u0002\"}\n"
      "{\"id\": \"long\", \"text\": \"" +
      std::string(3000000, 'x') +
      "\"}\n"
      "{\"id\": \"twice\", \"text\": \"t\"}\n{\"id\": \"twice\", \"text\": \"t\"}\n";
  const Outcome o = rerank(
      {"--query", "q", "--docs", put("docs.jsonl", docs), "--direct", "--max-doc-tokens", "100"});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  std::map<std::string, std::string> flags;
  for (const auto& line : json_lines(o.out)) {
    auto names = line["flags"].get<std::vector<std::string>>();
    std::erase(names, "low_answer_mass");  // of a random model
    flags[line["docid"]] = base::dump_json(base::Json(names));
  }
  EXPECT_THAT(flags,
              ElementsAre(std::pair("binary", "[\"binary_document\"]"),
                          std::pair("empty", "[\"empty_document\"]"),
                          std::pair("long", "[\"document_truncated\"]"), std::pair("twice", "[]")));
  EXPECT_EQ(lines_of(o.out).size(), 4u);
}

TEST_F(TinyRerankVerb, ReadsLongDocumentsInWindows) {
  const std::string docs = put("docs.jsonl",
                               "{\"id\": \"long\", \"text\": \"Paint is made of many things. Bread "
                               "rises when yeast makes gas. Air "
                               "scatters blue light more than red.\"}\n{\"id\": \"short\", "
                               "\"text\": \"The sky is blue.\"}\n");
  const std::vector<std::string> common = {"--query",          "sky", "--docs", docs, "--direct",
                                           "--max-doc-tokens", "40"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), common.begin(), common.end());
    const Outcome o = rerank(more);
    EXPECT_EQ(o.exit_code, 0) << o.err;
    std::map<std::string, base::Json> lines;
    for (const auto& line : json_lines(o.out)) lines[line["docid"]] = line;
    return lines;
  };
  auto windows = with({});
  EXPECT_EQ(windows["long"]["window"]["of"], 5);
  EXPECT_FALSE(windows["short"].contains("window"));
  auto cut = with({"--long-docs", "cut"});
  EXPECT_FALSE(cut["long"].contains("window"));
  EXPECT_EQ(cut["short"], [&] {
    auto line = windows["short"];
    line["rank"] = cut["short"]["rank"];
    return line;
  }());
  EXPECT_EQ(with({"--max-windows", "2"})["long"]["window"]["of"], 2);
  expect_refused(rerank({"--query", "q", "--docs", docs, "--max-windows", "0"}), "--max-windows");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--long-docs", "all"}), "all");
  // What it was made of.
  auto out = common;
  out.insert(out.end(), {"--out", path("w.jsonl")});
  ASSERT_EQ(rerank(out).exit_code, 0);
  out.insert(out.end(), {"--resume", "--long-docs", "cut"});
  expect_refused(rerank(out), "long_docs");
}

TEST_F(TinyRerankVerb, RefusesWhatItCannotDoWithOneLineAndCodeTwo) {
  put_collection();
  const std::string docs = put("docs.jsonl", kDocs);
  expect_refused(rerank({"--query", "q", "--docs",
                         put("twice.jsonl",
                             "{\"id\":\"a\",\"text\":\"x\"}\n"
                             "{\"id\":\"a\",\"text\":\"y\"}\n")}),
                 "twice");
  expect_refused(rerank({"--query", "q", "--docs", path("nowhere.jsonl")}), "nowhere");
  expect_refused(rerank({"--query", "q"}), "--docs");
  expect_refused(rerank({}), "nothing to rerank");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--hybrid", "zscore:0.2"}), "--hybrid");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--hybrid", "zscore:2"}), "zscore:2");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--score", "mean"}), "mean");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--resume"}), "--out");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--out", path("no/such/f")}), "no folder");
  expect_refused(rerank({"--query", "q", "--docs", docs, "--format", "trec", "--tag", "a b"}),
                 "blank");
  expect_refused(run({"rerank", "--query", "q", "--docs", docs, "--model", path("nothing")}),
                 "nothing");
  put("run.trec", "q1 Q0 d9 1 3.0 t\n");
  expect_refused(rerank_collection({}), "d9");
  put("run.trec", "q9 Q0 d1 1 3.0 t\n");
  expect_refused(rerank_collection({}), "q9");
}

TEST_F(TinyRerankVerb, PutsLastWhatItCannotScoreAndEndsWithCodeTwo) {
  put_collection();
  const std::string huge(3000, 'x');
  put("corpus.jsonl", "{\"_id\": \"d1\", \"text\": \"" + huge +
                          "\"}\n{\"_id\": \"d2\", \"text\": \"" + huge +
                          "\"}\n{\"_id\": \"d3\", \"text\": \"three\"}\n");
  // Less than what a whole context takes.
  const std::vector<std::string> little = {"--kv-cache-bytes", "1000000"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), little.begin(), little.end());
    return rerank_collection(more);
  };
  const Outcome o = with({});
  EXPECT_EQ(o.exit_code, 2);
  const auto lines = json_lines(o.out);
  EXPECT_THAT(column(lines, "docid"), ElementsAre("d3", "d1", "d2", "d3", "d1"));
  EXPECT_THAT(column(lines, "rank"), ElementsAre("1", "2", "3", "1", "2"));
  EXPECT_FALSE(lines[0].contains("error"));
  EXPECT_TRUE(lines[1]["score"].is_null());
  EXPECT_EQ(lines[1]["first_stage_score"], 3.0);
  EXPECT_EQ(lines[1]["error"]["kind"], "no_room");
  EXPECT_THAT(lines[1]["error"]["message"].get<std::string>(), HasSubstr("--kv-cache-bytes"));
  const auto errors = lines_of(o.err);
  ASSERT_EQ(errors.size(), 1u + 3 + 1 + 1 + 1)
      << o.err;  // q3, pairs, a random model, summary, the end
  EXPECT_THAT(errors[1], HasSubstr("query q1, document d1"));
  EXPECT_THAT(errors[3], HasSubstr("query q2, document d1"));
  EXPECT_THAT(errors[6], HasSubstr("3 of 5 pairs could not be scored"));

  // No document of a run is lost, and the file is there in full.
  const Outcome trec = with({"--top", "2", "--format", "trec", "--out", path("out.trec")});
  EXPECT_EQ(trec.exit_code, 2);
  std::vector<std::string> order;
  for (const auto& line : lines_of(base::read_file(path("out.trec")))) {
    std::istringstream in(line);
    std::string qid, q0, docid;
    in >> qid >> q0 >> docid;
    order.push_back(qid + " " + docid);
  }
  EXPECT_THAT(order, ElementsAre("q1 d1", "q1 d2", "q1 d3", "q2 d3", "q2 d1"));
  EXPECT_THAT(with({"--format", "table"}).out, HasSubstr("not scored: no_room"));
}

TEST_F(TinyRerankVerb, TriesAgainWhatHadNoRoom) {
  put_collection();
  const std::vector<std::string> to = {"--out", path("out.jsonl"), "--kv-cache-bytes", "20000"};
  const Outcome small = rerank_collection(to);
  EXPECT_EQ(small.exit_code, 2);
  EXPECT_THAT(small.err, HasSubstr("--kv-cache-bytes"));
  EXPECT_THAT(small.err, HasSubstr("--resume tries them again"));
  const Outcome again = rerank_collection({"--out", path("out.jsonl"), "--resume"});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  for (const auto& line : json_lines(base::read_file(path("out.jsonl"))))
    EXPECT_TRUE(line["score"].is_number());
  EXPECT_FALSE(base::file_exists(path("out.jsonl.journal")));
}

TEST_F(TinyRerankVerb, SaysThatDeterministicIsAlwaysSo) {
  put_collection();
  const Outcome o = rerank_collection({"--deterministic"});
  EXPECT_EQ(o.exit_code, 0);
  EXPECT_THAT(o.err, HasSubstr("warning: --deterministic"));
  EXPECT_EQ(o.out, rerank_collection({}).out);
}

TEST_F(TinyRerankVerb, KeepsTimesApartFromResults) {
  put_collection();
  const std::string times = path("times.jsonl");
  const Outcome plain = rerank_collection({});
  const Outcome o = rerank_collection({"--stats", times});
  ASSERT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(o.out, plain.out);
  const auto lines = json_lines(base::read_file(times));
  EXPECT_THAT(column(lines, "qid"), ElementsAre("q1", "q2"));
  EXPECT_THAT(column(lines, "pairs"), ElementsAre("3", "2"));
  int64_t prompts = 0;
  for (const auto& line : json_lines(o.out))
    if (line["qid"] == "q1") prompts += line["prompt_tokens"].get<int64_t>();
  EXPECT_EQ(lines[0]["prompt_tokens"], prompts);
  for (const auto& line : lines) {
    EXPECT_GT(line["seconds"], 0);
    EXPECT_LT(line["cached_tokens"], line["prompt_tokens"]);
    EXPECT_EQ(line["new_tokens"], 0);
  }
  expect_fails(rerank_collection({"--stats", times}), "exists");
  expect_fails(rerank_collection({"--stats", path("queries.jsonl"), "--overwrite"}),
               "is the same file as the input");
  expect_fails(rerank_collection({"--out", path("o"), "--stats", path("o")}), "file of --out");
}

TEST_F(TinyRerankVerb, BlendsWithTheFirstStage) {
  put_collection();
  const auto lines = json_lines(rerank_collection({"--hybrid", "zscore:1"}).out);
  EXPECT_THAT(column(lines, "docid"), ElementsAre("d1", "d2", "d3", "d3", "d1"));
  EXPECT_DOUBLE_EQ(lines[3]["score"].get<double>(), 1.0);
}

TEST_F(TinyRerankVerb, WritesAFileOnceUnlessTold) {
  const std::string docs = put("docs.jsonl", kDocs), out = path("out.jsonl");
  const std::vector<std::string> args = {"--query", "q", "--docs", docs, "--direct", "--out", out};
  auto more = [&](const char* flag) {
    auto all = args;
    all.push_back(flag);
    return all;
  };
  const Outcome first = rerank(args);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(first.out, "");
  const std::string written = base::read_file(out);
  EXPECT_EQ(lines_of(written).size(), 3u);
  expect_refused(rerank(args), "--overwrite");
  EXPECT_THAT(rerank(more("--resume")).err, HasSubstr("complete already"));
  EXPECT_EQ(rerank(more("--overwrite")).exit_code, 0);
  EXPECT_EQ(base::read_file(out), written);
  EXPECT_THAT(files(), ElementsAre("docs.jsonl", "out.jsonl", "out.jsonl.made.json", "tiny"));
}

TEST_F(TinyRerankVerb, AFinishedFileSaysWhatItWasMadeOf) {
  put_collection();
  const std::string out = path("out.jsonl");
  const auto again = [&](std::vector<std::string> more) {
    more.insert(more.end(), {"--out", out, "--resume"});
    return rerank_collection(more);
  };
  ASSERT_EQ(rerank_collection({"--out", out}).exit_code, 0);
  const std::string written = base::read_file(out);
  EXPECT_THAT(again({}).err, HasSubstr("complete already"));
  expect_fails(again({"--seed", "5"}), "'seed' was 0, now it is 5");
  expect_fails(again({"--format", "trec"}), "'format'");
  expect_fails(again({"--hybrid", "zscore:0.5"}), "'hybrid'");
  put("other.trec", base::read_file(path("run.trec")));
  EXPECT_THAT(rerank({"--queries", path("queries.jsonl"), "--corpus", path("corpus.jsonl"), "--run",
                      path("other.trec"), "--direct", "--out", out, "--resume"})
                  .err,
              HasSubstr("complete already"))
      << "a file that was moved is the same";
  put("run.trec",
      "q1 Q0 d1 1 3.0 t\nq1 Q0 d2 2 2.0000001 t\nq1 Q0 d3 3 1.0 t\nq2 Q0 d3 1 9 t\nq2 Q0 d1 2 8 "
      "t\n");
  expect_fails(again({}), "'first_stage'");
  put("run.trec", base::read_file(path("other.trec")));
  put("corpus.jsonl",
      base::read_file(path("corpus.jsonl")) + "{\"_id\": \"d4\", \"text\": \"four\"}\n");
  EXPECT_THAT(again({}).err, HasSubstr("complete already")) << "d4 is nobody's candidate";
  put("queries.jsonl",
      "{\"_id\": \"q1\", \"text\": \"another\"}\n{\"_id\": \"q2\", \"text\": \"second\"}\n");
  expect_fails(again({}), "'queries'");
  EXPECT_EQ(base::read_file(out), written);
  ::unlink((out + ".made.json").c_str());
  EXPECT_THAT(again({}).err, HasSubstr("there is no " + out + ".made.json"));
}

// Its record is of that file alone, whichever program wrote another one in its place.
TEST_F(TinyRerankVerb, AFinishedFileThatWasReplacedIsNotTakenForIt) {
  put_collection();
  const std::string out = path("out.jsonl"), made = out + ".made.json";
  const auto again = [&] { return rerank_collection({"--out", out, "--resume"}); };
  ASSERT_EQ(rerank_collection({"--out", out}).exit_code, 0);
  const std::string written = base::read_file(out);
  std::string other = written;
  other[written.size() / 2] ^= 1;
  put("out.jsonl", other);
  expect_fails(again(), made + " is of another file: " + out + " was changed since");
  put("out.jsonl", written + "\n");
  expect_fails(again(), base::str(out, " has ", written.size() + 1, " bytes, it had ",
                                  written.size(), "; make ", out, " anew, or remove ", made));
  EXPECT_EQ(rerank_collection({"--out", out, "--overwrite"}).exit_code, 0);
  EXPECT_EQ(base::read_file(out), written);
  EXPECT_THAT(again().err, HasSubstr("complete already; nothing to resume"));
  // A record of an earlier version does not know which file it is of.
  base::Json record = base::parse_json(base::read_file(made), made);
  const auto with = [&](const std::function<void(base::Json&)>& change) {
    base::Json changed = record;
    changed.erase("output");
    change(changed["made_of"]);
    put("out.jsonl.made.json", base::dump_json(changed));
  };
  with([](base::Json&) {});
  EXPECT_THAT(again().err, HasSubstr("complete already; nothing to resume"));
  with([](base::Json& made_of) { made_of["weights"] = "1f"; });
  expect_fails(again(),
               "\" (or it is of an earlier version of erank, which computed that digest "
               "otherwise); --overwrite makes it anew");
  with([](base::Json& made_of) { made_of.erase("long_docs"); });
  expect_fails(again(),
               "is complete, but it is of an earlier version of erank, which did not know "
               "'long_docs'; now that is \"windows\"");
  record["output"] = 7;
  put("out.jsonl.made.json", base::dump_json(record));
  expect_fails(again(), "does not say what an output");
}

TEST_F(TinyRerankVerb, ShardsInAnyOrderMakeTheWhole) {
  put_collection();
  for (const char* format : {"jsonl", "trec"}) {
    const std::string whole = path(std::string("whole.") + format);
    ASSERT_EQ(rerank_collection({"--format", format, "--out", whole}).exit_code, 0);
    std::vector<std::string> merge = {"merge"};
    for (const char* shard : {"3/4", "1/4", "4/4", "2/4"}) {  // of two queries: some have none
      merge.push_back(path(std::string(format) + shard[0] + ".gz"));
      const Outcome o =
          rerank_collection({"--format", format, "--shard", shard, "--out", merge.back()});
      ASSERT_EQ(o.exit_code, 0) << o.err;
    }
    merge.push_back(merge[2]);  // once more
    merge.insert(merge.end(), {"--out", path(std::string("merged.") + format)});
    const Outcome merged = run(merge);
    ASSERT_EQ(merged.exit_code, 0) << merged.err;
    EXPECT_EQ(base::read_file(path(std::string("merged.") + format)), base::read_file(whole));
    EXPECT_EQ(base::read_file(path(std::string("merged.") + format + ".made.json")),
              base::read_file(whole + ".made.json"));
  }
}

TEST_F(TinyRerankVerb, MergeNamesWhatDoesNotBelong) {
  put_collection();
  const auto shard = [&](const std::string& name, const std::string& part,
                         const std::vector<std::string>& more = {}) {
    auto args = more;
    args.insert(args.end(), {"--shard", part, "--out", path(name)});
    EXPECT_EQ(rerank_collection(args).exit_code, 0);
    return path(name);
  };
  const std::string one = shard("one", "1/3"), two = shard("two", "2/3");
  expect_refused(run({"merge", one, two, "--out", path("m")}), "1 of 3 shards are missing: 3");
  expect_refused(run({"merge", one, shard("other", "2/2"), "--out", path("m")}), "2 of 2");
  expect_refused(run({"merge", one, shard("seeded", "3/3", {"--seed", "1"}), "--out", path("m")}),
                 "'seed'");
  expect_refused(run({"merge", one, two, path("no"), "--out", path("m")}), "no such file");
  expect_refused(run({"merge", one, put("plain", "x"), "--out", path("m")}), "plain.made.json");
  expect_refused(run({"merge", one, two, "--out", one, "--overwrite"}), "one");
  EXPECT_EQ(
      rerank_collection({"--shard", "2/3", "--kv-cache-bytes", "20000", "--out", path("failed")})
          .exit_code,
      2);
  expect_refused(run({"merge", one, path("failed"), "--out", path("m")}), "--resume");
  put("copy", "changed");
  put("copy.made.json", base::read_file(one + ".made.json"));
  expect_refused(run({"merge", one, path("copy"), "--out", path("m")}),
                 "copy.made.json is of another file");
  base::Json early = base::parse_json(base::read_file(one + ".made.json"), "made.json");
  early.erase("output");
  put("copy.made.json", base::dump_json(early));
  expect_refused(run({"merge", one, path("copy"), "--out", path("m")}), "both shard 1");
  EXPECT_FALSE(base::file_exists(path("m")));
  for (const char* bad : {"0/2", "3/2", "1", "1/", "a/2", "1/2x"})
    expect_refused(rerank_collection({"--shard", bad, "--out", path("m")}), "from 1 to n");
  expect_refused(rerank_collection({"--shard", "1/2"}), "--out");
}

TEST_F(TinyRerankVerb, TwoRunsOfOneOutputAreToldApart) {
  put_collection();
  const base::WriteLock lock(path("out.jsonl"));
  expect_fails(rerank_collection({"--out", path("out.jsonl")}), "is writing it");
  expect_fails(rerank_collection({"--out", path("out.jsonl"), "--overwrite"}), "is writing it");
}

TEST_F(TinyRerankVerb, SaysWhenTheModelDoesNotAnswerAsItIsAsked) {
  put_collection();
  const Outcome o = rerank_collection({});
  EXPECT_THAT(o.err,
              HasSubstr("of 5 of 5 pairs the answers on the scale together have less than 0.1"));
  for (const auto& line : json_lines(o.out))
    EXPECT_THAT(line["flags"].get<std::vector<std::string>>(),
                ::testing::Contains("low_answer_mass"));
}

TEST_F(TinyRerankVerb, RanksTheDemosPassagesWithTheDefaultModel) {
  const std::string demo = std::string(ERANK_SOURCE_DIR) + "/examples/demo";
  if (!base::file_exists(base::cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    GTEST_SKIP() << "the default model's base is not in the cache; tools/setup fetches it";
  std::string queries;
  const auto all = lines_of(base::read_file(demo + "/queries.jsonl"));
  for (int i = 0; i < 3; ++i) queries += all[i] + "\n";
  put("queries.jsonl", queries);
  ASSERT_EQ(run({"index", "--beir", demo, "--out", path("index")}).exit_code, 0);
  ASSERT_EQ(run({"retrieve", "--index", path("index"), "--queries", path("queries.jsonl"), "--top",
                 "3", "--out", path("bm25.trec")})
                .exit_code,
            0);
  for (const bool think : {false, true}) {
    std::vector<std::string> args = {
        "rerank", "--queries",       path("queries.jsonl"), "--corpus", demo + "/corpus.jsonl",
        "--run",  path("bm25.trec"), "--max-think-tokens",  "4"};
    args.push_back(think ? "--think" : "--direct");
    const Outcome o = run(args);
    ASSERT_EQ(o.exit_code, 0) << o.err;
    const auto lines = json_lines(o.out);
    ASSERT_EQ(lines.size(), 9u);
    EXPECT_THAT(o.err, HasSubstr("erank-135m"));
    for (const auto& line : lines) {
      double mass = 0;
      for (const auto& p : line["distribution"]) mass += p.get<double>();
      EXPECT_GT(mass, 0.01);  // of chance: 11 / 49152
      EXPECT_LE(line["new_tokens"], think ? 4 : 0);
    }
  }
}

TEST_F(TinyRerankVerb, AveragesSeveralReasonings) {
  put("docs.jsonl", "{\"_id\": \"d\", \"text\": \"Blue.\"}\n");
  const auto args = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = {
        "--query", "sky",      "--docs", path("docs.jsonl"),   "--think",
        "--quiet", "--format", "jsonl",  "--max-think-tokens", "6"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const Outcome one = rerank(args({"--temperature", "1"}));
  ASSERT_EQ(one.exit_code, 0) << one.err;
  const Outcome three = rerank(args({"--temperature", "1", "--samples", "3"}));
  ASSERT_EQ(three.exit_code, 0) << three.err;
  EXPECT_GT(json_lines(three.out).at(0)["new_tokens"].get<int>(),
            json_lines(one.out).at(0)["new_tokens"].get<int>());
  expect_refused(rerank(args({"--samples", "3"})), "need reasoning and a temperature above 0");
}

}  // namespace
}  // namespace erank::cli
