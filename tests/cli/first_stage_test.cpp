#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class TinyFirstStage : public Program {
 protected:
  void SetUp() override {
    put("corpus.jsonl",
        "{\"_id\": \"q1\", \"title\": \"Sky\", \"text\": \"Why the sky is blue.\"}\n"
        "{\"_id\": \"d 2\", \"text\": \"Bread rises with yeast.\"}\n"
        "{\"_id\": \"d3\", \"text\": \"Blue paint.\"}\n"
        "{\"_id\": \"d5\", \"text\": \"Yeasts ferment sugar in bread dough.\"}\n");
    put("queries.jsonl",
        "{\"_id\": \"q1\", \"text\": \"blue sky\"}\n{\"_id\": \"q 2\", \"text\": \"bread\"}\n"
        "{\"_id\": \"q3\", \"text\": \"zebra\"}\n");
  }
  std::string index(const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"index", "--corpus",          path("corpus.jsonl"),
                                     "--out", path("corpus.bm25"), "--overwrite"};
    args.insert(args.end(), more.begin(), more.end());
    const Outcome made = run(args);
    EXPECT_EQ(made.exit_code, 0) << made.err;
    return path("corpus.bm25");
  }
  Outcome retrieve(const std::vector<std::string>& more) {
    std::vector<std::string> args = {"retrieve", "--index", index(), "--queries",
                                     path("queries.jsonl")};
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  }
};

TEST_F(TinyFirstStage, CandidatesPipeIntoRerank) {
  const Outcome found = retrieve({"--format", "jsonl"});
  ASSERT_EQ(found.exit_code, 0) << found.err;
  EXPECT_THAT(found.err, HasSubstr("1 of 3 queries share no word"));
  const auto lines = json_lines(found.out);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0]["query"], "blue sky");
  EXPECT_THAT(column(lines[0]["hits"], "docid"), ElementsAre("q1", "d3"));
  EXPECT_EQ(lines[0]["hits"][0]["text"], "Sky Why the sky is blue.");
  EXPECT_LT(base::dump_json(lines[0]["hits"][0]["score"]).size(), 12u);  // a float's digits
  EXPECT_EQ(lines[1]["qid"], "q 2");
  EXPECT_EQ(lines[1]["hits"].size(), 2u);
  EXPECT_TRUE(lines[2]["hits"].empty());
  const Outcome ranked = rerank({"--candidates", "-", "--hybrid", "minmax:0.5"}, found.out);
  ASSERT_EQ(ranked.exit_code, 0) << ranked.err;
  EXPECT_THAT(column(json_lines(ranked.out), "docid"),
              ::testing::UnorderedElementsAre("q1", "d3", "d 2", "d5"));
  // Of a folder without an index the same.
  EXPECT_EQ(run({"retrieve", "--beir", path(""), "--format", "jsonl"}).out, found.out);
  expect_refused(retrieve({"--out", path("run")}), "write JSONL instead");
}

TEST_F(TinyFirstStage, TheQuerysOwnDocumentIsLeftOut) {
  const auto ids = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"--format", "jsonl"};
    args.insert(args.end(), more.begin(), more.end());
    return column(json_lines(retrieve(args).out).at(0)["hits"], "docid");
  };
  EXPECT_THAT(ids({"--top", "1"}), ElementsAre("q1"));
  EXPECT_THAT(ids({"--top", "1", "--drop-identical-ids"}), ElementsAre("d3"));
  EXPECT_THAT(ids({"--drop-identical-ids"}), ElementsAre("d3"));
}

TEST_F(TinyFirstStage, QueriesMayBeWeightedLikeDocuments) {
  const auto scores = [&](const std::string& weights) {
    const Outcome found = retrieve({"--format", "jsonl", "--query-weights", weights});
    return column(json_lines(found.out).at(0)["hits"], "score");
  };
  EXPECT_EQ(scores("counts").size(), scores("bm25").size());
  EXPECT_NE(scores("counts"), scores("bm25"));
  expect_refused(retrieve({"--query-weights", "tf"}), "--query-weights");
}

TEST_F(TinyFirstStage, AnIndexOfAnotherCorpusIsRefused) {
  const std::string made = index();
  const std::vector<std::string> again = {"retrieve", "--format", "jsonl", "--index",
                                          made,       "--beir",   path("")};
  const Outcome same = run(again);
  ASSERT_EQ(same.exit_code, 0) << same.err;
  const std::string corpus = base::read_file(path("corpus.jsonl"));
  put("moved/corpus.jsonl", corpus);
  put("moved/queries.jsonl", base::read_file(path("queries.jsonl")));
  EXPECT_EQ(run({"retrieve", "--format", "jsonl", "--index", made, "--beir", path("moved")}).out,
            same.out);

  std::filesystem::copy_file(made, path("other"));
  put("corpus.jsonl", corpus + "{\"_id\": \"d6\", \"text\": \"Blue bread.\"}\n");
  expect_refused(run(again), "was not made of " + path("corpus.jsonl") + " as it is: 'corpus' was");
  EXPECT_EQ(
      run({"retrieve", "--format", "jsonl", "--index", made, "--queries", path("queries.jsonl")})
          .out,
      same.out);
  index();
  const Outcome fresh = run(again);
  EXPECT_EQ(fresh.exit_code, 0) << fresh.err;
  EXPECT_THAT(fresh.out, HasSubstr("\"d6\""));
  // Another index in its place is not the one that its record is of.
  std::filesystem::copy_file(path("other"), made,
                             std::filesystem::copy_options::overwrite_existing);
  expect_refused(run(again), "was not made of " + path("corpus.jsonl") + " as it is: " + made);
  index();
  auto field = again;
  field.insert(field.end(), {"--text-field", "title"});
  expect_refused(run(field), "'text_field' was \"\", now it is \"title\"");

  // What is made of a stream cannot be told apart, and says nothing of an older one.
  ASSERT_EQ(run({"index", "--corpus", "-", "--out", made, "--overwrite"}, corpus).exit_code, 0);
  EXPECT_FALSE(base::file_exists(made + ".made.json"));
  EXPECT_EQ(run(again).out, same.out);
  put("other.bm25.made.json", "{}");
  expect_refused(run({"index", "--corpus", path("corpus.jsonl"), "--out", path("other.bm25")}),
                 "other.bm25.made.json");
}

TEST_F(TinyFirstStage, TheIndexKnowsItsAnalyzer) {
  const auto found = [&](const std::string& analyzer, const std::string& query) {
    put("one.jsonl", "{\"_id\": \"q\", \"text\": \"" + query + "\"}\n");
    const Outcome o = run({"retrieve", "--index", index({"--analyzer", analyzer}), "--queries",
                           path("one.jsonl"), "--format", "jsonl"});
    EXPECT_EQ(o.exit_code, 0) << o.err;
    return json_lines(o.out).at(0)["hits"].size();
  };
  EXPECT_EQ(found("english", "YEAST"), 2u);
  EXPECT_EQ(found("unicode", "YEAST"), 1u);
  EXPECT_EQ(found("whitespace", "yeast"), 0u);
  EXPECT_EQ(found("whitespace", "yeast."), 1u);
  EXPECT_EQ(found("unicode", "the"), 1u);
  expect_refused(
      run({"index", "--corpus", path("corpus.jsonl"), "--out", path("x"), "--analyzer", "german"}),
      "german");
}

TEST_F(TinyFirstStage, OldAndDamagedIndexesGiveOneLine) {
  std::string bytes = base::read_file(index());
  const auto refused = [&](const std::string& part) {
    put("bad.bm25", bytes);
    expect_refused(
        run({"retrieve", "--index", path("bad.bm25"), "--queries", path("queries.jsonl")}), part);
  };
  bytes[30] ^= 1;
  refused("is damaged");
  bytes[8] = 1;
  refused("has version 1, expected 2; make the index again with `erank index`");
  bytes.resize(100);
  bytes[8] = 2;
  refused("not complete");
}

TEST_F(TinyFirstStage, AKilledIndexLeavesNothing) {
  const auto before = files();
  ASSERT_EQ(::mkfifo(path("pipe.jsonl").c_str(), 0600), 0);
  const pid_t pid = start({"index", "--corpus", path("pipe.jsonl"), "--out", path("out.bm25")});
  std::ofstream pipe(path("pipe.jsonl"));
  for (int i = 0; i < 5000; ++i)
    pipe << "{\"_id\": \"" << i << "\", \"text\": \"some words of a text\"}\n";
  pipe.flush();
  ::usleep(300'000);
  ::kill(pid, SIGKILL);
  EXPECT_EQ(finish(pid).exit_code, -1);
  pipe.close();
  ::unlink(path("pipe.jsonl").c_str());
  ::unlink(path(".out.bm25.erank-tmp-lock").c_str());  // taken over by who writes next
  EXPECT_EQ(files(), before);
}

TEST_F(TinyFirstStage, DuplicatesAreCountedOnceOrRefused) {
  put("twice.jsonl", "{\"_id\": \"a\", \"text\": \"one\"}\n{\"_id\": \"a\", \"text\": \"one\"}\n");
  EXPECT_EQ(run({"index", "--corpus", path("twice.jsonl"), "--out", path("a")}).exit_code, 0);
  put("twice.jsonl", "{\"_id\": \"a\", \"text\": \"one\"}\n{\"_id\": \"a\", \"text\": \"two\"}\n");
  expect_refused(run({"index", "--corpus", path("twice.jsonl"), "--out", path("b")}),
                 "twice.jsonl:2: id 'a' was already on line 1 with another text");
  put("none.jsonl", "\n");
  expect_refused(run({"index", "--corpus", path("none.jsonl"), "--out", path("b")}),
                 "the corpus has no documents");
}

TEST_F(TinyFirstStage, FuseAddsRunsUp) {
  put("a.run", "q1 Q0 d1 1 4 a\nq1 Q0 d2 2 2 a\nq1 Q0 d3 3 0 a\n");
  put("b.run", "q2 Q0 d9 1 1 b\nq1 Q0 d3 1 30 b\nq1 Q0 d4 2 10 b\n");
  const auto fused = [&](const std::vector<std::string>& more) {
    std::vector<std::string> args = {"fuse", path("a.run"), path("b.run")};
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  };
  const Outcome scaled = fused({"--method", "minmax", "--weights", "1,0.5"});
  EXPECT_EQ(scaled.exit_code, 0) << scaled.err;
  // d3 has 0.5 as d2 has; written scores fall.
  EXPECT_THAT(lines_of(scaled.out),
              ElementsAre("q1 Q0 d1 1 1 erank-fuse", "q1 Q0 d2 2 0.5 erank-fuse",
                          "q1 Q0 d3 3 0.49999997 erank-fuse", "q1 Q0 d4 4 0 erank-fuse",
                          "q2 Q0 d9 1 0.5 erank-fuse"));
  EXPECT_THAT(fused({"--method", "rrf", "--rrf-k", "0", "--tag", "t"}).out,
              StartsWith("q1 Q0 d3 1 1.3333334 t\nq1 Q0 d1 2 1 t\n"));
  EXPECT_EQ(fused({"--method", "sum", "--out", path("f.run")}).exit_code, 0);
  EXPECT_THAT(base::read_file(path("f.run")), StartsWith("q1 Q0 d3 1 30 "));
  expect_refused(fused({"--method", "sum", "--out", path("f.run")}), "--overwrite");
  expect_refused(fused({"--method", "sum", "--overwrite", "--out", path("a.run")}), "a.run");
  expect_refused(fused({"--method", "sum", "--weights", "1"}), "1 weights for 2 runs");
  for (const char* bad : {"1,", "1;2", "1,-2", "1,nan", ",1", "1,2x"})
    expect_refused(fused({"--method", "sum", "--weights", bad}), std::string("'") + bad + "'");
  expect_refused(fused({"--method", "borda"}), "borda");
  expect_refused(run({"fuse", "--method", "sum", path("a.run")}), "At least 2 required");
  expect_refused(run({"fuse", "--method", "sum", path("a.run"), path("none.run")}), "none.run");
}

// A text of the same length in the middle of a corpus of some megabytes.
TEST_F(TinyFirstStage, AnIndexIsRefusedForACorpusThatChangedInOneWord) {
  std::string corpus;
  for (int i = 0; i < 40'000; ++i)
    corpus += "{\"_id\": \"d" + std::to_string(i) + "\", \"text\": \"a text of its own, " +
              std::to_string(i) + ", and blue\"}\n";
  put("beir/corpus.jsonl", corpus);
  put("beir/queries.jsonl", "{\"_id\": \"q\", \"text\": \"blue 7\"}\n");
  ASSERT_EQ(run({"index", "--beir", path("beir"), "--out", path("beir.bm25")}).exit_code, 0);
  const std::vector<std::string> retrieve = {
      "retrieve", "--index", path("beir.bm25"), "--beir", path("beir"), "--threads", "1"};
  EXPECT_EQ(run(retrieve).exit_code, 0);
  corpus.replace(corpus.find("blue", corpus.size() / 3), 4, "pink");
  put("beir/corpus.jsonl", corpus);
  expect_refused(run(retrieve), "was not made of");
}

TEST_F(TinyFirstStage, SearchShowsRerankedTexts) {
  const std::string made = index();
  const Outcome shown = run({"search", "--index", made, "--model", tiny_model(), "--threads", "1",
                             "--query", "blue sky"});
  ASSERT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("\n    Sky Why the sky is blue.\n"));
  EXPECT_THAT(shown.out, HasSubstr("\n    Blue paint.\n"));
  EXPECT_THAT(shown.out, HasSubstr("(BM25: 2, 0.40)"));
  EXPECT_THAT(shown.out, Not(HasSubstr("\x1b")));
  const Outcome json = run({"search", "--index", made, "--model", tiny_model(), "--threads", "1",
                            "--query", "blue sky", "--json", "--show", "1"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const auto lines = json_lines(json.out);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0]["rank"], 1);
  EXPECT_THAT(lines[0]["text"].get<std::string>(), HasSubstr("lue"));
  // A random model does not answer as it is asked to: said once, or by the flag of each line.
  EXPECT_THAT(lines_of(shown.err),
              ElementsAre(HasSubstr("of 2 of 2 pairs the answers on the scale together have")));
  EXPECT_EQ(lines[0]["flags"][0], "low_answer_mass");
  EXPECT_THAT(json.err, Not(HasSubstr("answers on the scale")));
  expect_refused(run({"search", "--index", made, "--query", ""}), "--query] is empty");
  for (const char* show : {"0", "-1", "1e300"}) {
    const Outcome refused = run({"search", "--index", made, "--query", "x", "--show", show});
    expect_refused(refused, "--show");
    EXPECT_LT(refused.err.size(), 200u);
  }
  const Outcome none =
      run({"search", "--index", made, "--model", tiny_model(), "--query", "zebra"});
  EXPECT_EQ(none.exit_code, 0);
  EXPECT_EQ(none.out, "");
  EXPECT_THAT(none.err, HasSubstr("no document has a word of the query"));
  expect_refused(run({"search", "--index", path("corpus.jsonl"), "--query", "x"}), "not an index");
}

// What the program writes to a terminal of 60 columns.
std::string on_terminal(const std::vector<std::string>& args) {
  const int terminal = ::posix_openpt(O_RDWR | O_NOCTTY);
  EXPECT_GE(terminal, 0);
  ::grantpt(terminal);
  ::unlockpt(terminal);
  const winsize size{24, 60, 0, 0};
  ::ioctl(terminal, TIOCSWINSZ, &size);
  const std::string program = std::string(ERANK_BINARY_DIR) + "/erank";
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const auto& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::setenv("TERM", "xterm", 1);
    ::dup2(::open(::ptsname(terminal), O_RDWR | O_NOCTTY), 1);
    ::dup2(::open("/dev/null", O_WRONLY), 2);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  std::string out;
  char piece[4096];
  for (ssize_t n = 0; (n = ::read(terminal, piece, sizeof piece)) > 0;)
    out.append(piece, static_cast<size_t>(n));
  ::close(terminal);
  int status = 0;
  ::waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << out;
  std::erase(out, '\r');
  return out;
}

TEST_F(TinyFirstStage, SearchWrapsTextsAndMarksWordsOnATerminal) {
  if (::access("/dev/ptmx", R_OK | W_OK) != 0) GTEST_SKIP() << "there are no pseudo-terminals";
  std::string text = "Chain\x1b[31mrings skip";
  for (int i = 0; i < 30; ++i) text += " and the worn chains slip";
  put("corpus.jsonl", "{\"_id\": \"a\", \"text\": " + base::dump_json(base::Json(text)) +
                          "}\n{\"_id\": \"b\", \"text\": \"\u65e5\u672c\u8a9e chain's chain\"}\n");
  // Direct, so that the context has room for the whole text.
  ASSERT_EQ(run({"model", "random", "--shape", "tiny", "--out", path("direct")}).exit_code, 0);
  put("direct/erank.json", "{\"mode\": \"direct\"}");
  const auto out = on_terminal({"search", "--index", index(), "--model", path("direct"),
                                "--threads", "1", "--query", "chain"});
  EXPECT_THAT(out, HasSubstr("    \u65e5\u672c\u8a9e \x1b[1mchain's\x1b[0m \x1b[1mchain\x1b[0m\n"));
  EXPECT_THAT(out, HasSubstr("\n    \x1b[1mChain\x1b[0m [31mrings skip and the worn "
                             "\x1b[1mchains\x1b[0m slip and the\n"));
  EXPECT_THAT(out, HasSubstr("…\n"));  // five lines of it
  for (auto line : lines_of(out)) {
    for (const char* mark : {"\x1b[1m", "\x1b[0m"})
      for (size_t at; (at = line.find(mark)) != line.npos;) line.erase(at, 4);
    EXPECT_THAT(line, Not(HasSubstr("\x1b")));
    EXPECT_LE(std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xc0) != 0x80; }),
              60)
        << line;
  }
}

}  // namespace
}  // namespace erank::cli
