#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <thread>

#include "erank/base/files.h"
#include "tests/cli/program.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Args = std::vector<std::string>;

// Every verb that writes a file, on a small collection.
class TinyOutput : public Program {
 protected:
  void SetUp() override {
    put("corpus.jsonl",
        "{\"_id\": \"d1\", \"text\": \"blue sky\"}\n{\"_id\": \"d2\", \"text\": \"bread\"}\n");
    put("queries.jsonl", "{\"_id\": \"q1\", \"text\": \"blue\"}\n");
    put("qrels.txt", "q1 0 d1 1\n");
    put("run.trec", "q1 Q0 d1 1 2.0 t\nq1 Q0 d2 2 1.0 t\n");
    put("texts.jsonl", "{\"text\": \"a b\"}\n");
    put("pairs.jsonl", "{\"query\": \"a\", \"document\": \"b\"}\n");
    put("ids.jsonl", "{\"ids\": [1, 2]}\n");
    tiny_model();
    ASSERT_EQ(run({"index", "--corpus", path("corpus.jsonl"), "--out", path("i.bm25")}).exit_code,
              0);
    verbs_ = {
        {"index", {"index", "--corpus", path("corpus.jsonl")}},
        {"retrieve", {"retrieve", "--index", path("i.bm25"), "--queries", path("queries.jsonl")}},
        {"fuse", {"fuse", "--method", "rrf", path("run.trec"), path("run.trec")}},
        {"eval", {"eval", path("qrels.txt"), path("run.trec")}},
        {"tokenize", {"tokenize", "--model", path("tiny"), "--in", path("texts.jsonl")}},
        {"prompt", {"prompt", "--model", path("tiny"), "--in", path("pairs.jsonl")}},
        {"logits", {"model", "logits", "--model", path("tiny"), "--in", path("ids.jsonl")}},
        {"rerank",
         rerank_args({"--queries", path("queries.jsonl"), "--corpus", path("corpus.jsonl"), "--run",
                      path("run.trec"), "--direct", "--quiet"})}};
  }
  Args with(const std::string& verb, const Args& more) const {
    Args args = verbs_.at(verb);
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  Outcome to(const std::string& verb, const std::string& out, const Args& more = {}) const {
    Args args = with(verb, {"--out", out});
    args.insert(args.end(), more.begin(), more.end());
    return run(args);
  }
  // What the verb writes.
  std::string expected(const std::string& verb) const {
    EXPECT_EQ(to(verb, path("expected")).exit_code, 0) << verb;
    const std::string bytes = base::read_file(path("expected"));
    EXPECT_NE(bytes, "") << verb;
    for (const char* name : {"expected", "expected.made.json"}) fs::remove(path(name));
    return bytes;
  }
  // Runs `script` by bash in the folder, with the program as $erank.
  int shell(const std::string& script) const {
    const std::string file = put("script", script);
    const std::string command = "cd '" + path("") + "' && erank='" + ERANK_BINARY_DIR +
                                "/erank' OMP_NUM_THREADS=1 bash '" + file + "'";
    const int status = std::system(command.c_str());
    fs::remove(file);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::map<std::string, std::string> contents() const {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(path("")))
      if (entry.is_regular_file()) out[entry.path()] = base::read_file(entry.path());
    return out;
  }

  std::map<std::string, Args> verbs_;
};

TEST_F(TinyOutput, AFifoIsWrittenIntoAndStaysOne) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  for (const auto& [verb, args] : verbs_) {
    const std::string whole = expected(verb);
    std::string got;
    std::thread reader([&] { got = base::read_file(path("fifo")); });
    const Outcome o = to(verb, path("fifo"));
    if (o.exit_code != 0) ::close(::open(path("fifo").c_str(), O_WRONLY | O_NONBLOCK));
    reader.join();
    EXPECT_EQ(o.exit_code, 0) << o.err;
    EXPECT_EQ(got, whole) << verb;
    EXPECT_TRUE(fs::is_fifo(path("fifo"))) << verb;
  }
  EXPECT_THAT(files(), Not(Contains(HasSubstr("journal"))));
}

TEST_F(TinyOutput, DescriptorsAndProcessSubstitutionAreWrittenInto) {
  for (const auto& [verb, args] : verbs_) {
    const std::string whole = expected(verb);
    Args names = {"/dev/stdout"};
    if (verb == "eval") names = {"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"};
    for (const auto& name : names) {
      const Outcome o = to(verb, name);
      EXPECT_EQ(o.exit_code, 0) << verb << " " << name << o.err;
      EXPECT_EQ(o.out, whole) << verb << " " << name;
    }
    std::string line = "\"$erank\"";
    for (const auto& arg : args) line += " '" + arg + "'";
    EXPECT_EQ(shell(line + " --out >(cat > got)\nstatus=$?\nwait $!\nexit $status"), 0) << verb;
    EXPECT_EQ(base::read_file(path("got")), whole) << verb;
    // A descriptor is written at its offset.
    EXPECT_EQ(shell("echo first > got\n" + line + " --out /dev/fd/5 5>> got\necho last >> got"), 0);
    EXPECT_EQ(base::read_file(path("got")), "first\n" + whole + "last\n") << verb;
    fs::remove(path("got"));
  }
  EXPECT_THAT(files(), Not(Contains(HasSubstr("journal"))));
}

TEST_F(TinyOutput, LinksAreWrittenThrough) {
  fs::create_directory(path("d"));
  for (const auto& [verb, args] : verbs_) {
    const std::string whole = expected(verb);
    put("d/target", "old");
    fs::create_symlink("d/target", path("link"));
    fs::create_symlink(path("d/new"), path("dangling"));
    expect_refused(to(verb, path("link")), "--overwrite");
    EXPECT_EQ(base::read_file(path("d/target")), "old");
    for (const char* name : {"link", "dangling"}) {
      const Outcome o = to(verb, path(name), {"--overwrite"});
      EXPECT_EQ(o.exit_code, 0) << o.err;
      EXPECT_TRUE(fs::is_symlink(path(name))) << verb;
      EXPECT_EQ(base::read_file(path(name)), whole) << verb;
    }
    fs::remove(path("link"));
    fs::create_symlink("link", path("link"));
    expect_refused(to(verb, path("link")), "in a circle");
    for (const char* name : {"d/target.made.json", "d/new.made.json"})
      EXPECT_EQ(fs::remove(path(name)), verb == "rerank" || verb == "index") << name;
    EXPECT_EQ(std::distance(fs::directory_iterator(path("d")), fs::directory_iterator()), 2);
    for (const char* name : {"link", "dangling", "d/target", "d/new"}) fs::remove(path(name));
  }
}

// What says of what a file was made says nothing of the one that takes its place.
TEST_F(TinyOutput, ARecordGoesWithTheFileThatItIsOf) {
  const std::string out = path("o"), record = out + ".made.json";
  for (const auto& [verb, args] : verbs_) {
    if (verb == "rerank" || verb == "index") continue;  // which write their own
    for (const char* of : {"rerank", "index"}) {
      put("o", "old");
      put("o.made.json", std::string("{\"verb\": \"") + of + "\", \"made_of\": {}}");
      expect_refused(to(verb, out), "--overwrite");
      EXPECT_TRUE(fs::exists(record)) << verb;
      EXPECT_EQ(to(verb, out, {"--overwrite"}).exit_code, 0) << verb;
      EXPECT_FALSE(fs::exists(record)) << verb;
    }
    for (const char* other : {"{\"made_of\": 1}", "no JSON"}) {  // somebody's own
      put("o.made.json", other);
      EXPECT_EQ(to(verb, out, {"--overwrite"}).exit_code, 0) << verb;
      EXPECT_TRUE(fs::remove(record)) << verb;
    }
  }
  // Until there is a new one the old one keeps its record.
  ASSERT_EQ(to("rerank", out, {"--overwrite"}).exit_code, 0);
  EXPECT_EQ(
      run({"fuse", "--method", "rrf", path("run.trec"), path("none"), "--out", out, "--overwrite"})
          .exit_code,
      2);
  EXPECT_TRUE(fs::exists(record));
  ASSERT_EQ(to("fuse", out, {"--overwrite"}).exit_code, 0);
  const Outcome scored = run({"calibrate", out, "--qrels", path("qrels.txt")});
  EXPECT_THAT(scored.err, Not(HasSubstr("is of another file"))) << scored.err;
}

TEST_F(TinyOutput, DevicesStayDevicesAndAFullOneIsOneLine) {
  if (!fs::is_character_file("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  for (const auto& [verb, args] : verbs_) {
    EXPECT_EQ(to(verb, "/dev/null").exit_code, 0) << verb;
    expect_refused(to(verb, "/dev/full"), "/dev/full: cannot write: No space left on device");
    std::string line = "\"$erank\"";
    for (const auto& arg : args) line += " '" + arg + "'";
    if (verb == "index") line += " --out -";
    EXPECT_EQ(shell(line + " > /dev/full 2> got"), 2) << verb;
    EXPECT_THAT(lines_of(base::read_file(path("got"))),
                ElementsAre(HasSubstr("stdout: cannot write: No space left")));
  }
  // What is no verb's --out too.
  for (const char* stream : {"> /dev/full", ">&-"}) {
    EXPECT_EQ(shell(std::string("\"$erank\" train sft --help ") + stream + " 2> got"), 2) << stream;
    EXPECT_THAT(lines_of(base::read_file(path("got"))),
                ElementsAre(HasSubstr("stdout: cannot write")));
  }
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
  // Not one file, for all that it has one number.
  EXPECT_EQ(run({"tokenize", "--model", path("tiny"), "--in", "/dev/null", "--out", "/dev/null"})
                .exit_code,
            0);
}

TEST_F(TinyOutput, AClosedStreamIsNeverTheNumberOfAFile) {
  EXPECT_EQ(shell("\"$erank\" tokenize --model tiny --in texts.jsonl >&- 2> got"), 2);
  EXPECT_THAT(base::read_file(path("got")), HasSubstr("stdout: cannot write"));
  EXPECT_EQ(shell("\"$erank\" tokenize --model tiny --in texts.jsonl --out o >&- 2>&- <&-"), 0);
  EXPECT_EQ(base::read_file(path("o")), expected("tokenize"));
}

TEST_F(TinyOutput, AFolderIsNoFile) {
  fs::create_directory(path("d"));
  put("d/kept", "x");
  for (const auto& [verb, args] : verbs_) {
    expect_refused(to(verb, path("d"), {"--overwrite"}), "is a folder");
    expect_refused(to(verb, path("none/f")), "no folder");
  }
  EXPECT_EQ(base::read_file(path("d/kept")), "x");
}

TEST_F(TinyOutput, AnInputIsNeverReplaced) {
  const auto before = contents();
  const std::map<std::string, Args> inputs = {
      {"index", {"corpus.jsonl"}},
      {"retrieve", {"i.bm25", "queries.jsonl"}},
      {"eval", {"qrels.txt", "run.trec"}},
      {"tokenize", {"texts.jsonl", "tiny/tokenizer.json"}},
      {"prompt", {"pairs.jsonl", "tiny/tokenizer_config.json"}},
      {"logits", {"ids.jsonl", "tiny/model.safetensors"}},
      {"rerank", {"corpus.jsonl", "queries.jsonl", "run.trec", "tiny/config.json"}}};
  for (const auto& [verb, names] : inputs)
    for (const auto& name : names) {
      expect_refused(to(verb, path(name), {"--overwrite"}), "is the same file as the input");
      if (verb != "eval") continue;
      fs::create_symlink(name, path("link"));
      fs::create_hard_link(path(name), path("hard"));
      for (const char* out : {"link", "hard"})
        expect_refused(to(verb, path(out), {"--overwrite"}), "is the same file as the input");
      expect_refused(to(verb, path(name)), "is the same file as the input");
      fs::remove(path("link"));
      fs::remove(path("hard"));
    }
  expect_refused(rerank({"--beir", path(""), "--run", path("run.trec"), "--overwrite", "--out",
                         path("corpus.jsonl")}),
                 "is the same file as the input");
  // A file merely in a folder that is read from is no input.
  put("out.trec", "old");
  EXPECT_EQ(rerank({"--beir", path(""), "--run", path("run.trec"), "--direct", "--quiet",
                    "--overwrite", "--out", path("out.trec")})
                .exit_code,
            0);
  fs::remove(path("out.trec"));
  fs::remove(path("out.trec.made.json"));
  EXPECT_EQ(shell("\"$erank\" tokenize --model tiny --in texts.jsonl >> texts.jsonl 2> /dev/null"),
            2);
  EXPECT_EQ(shell("\"$erank\" tokenize --model tiny --out texts.jsonl --overwrite < texts.jsonl "
                  "2> /dev/null"),
            2);
  EXPECT_EQ(contents(), before);
}

TEST_F(TinyOutput, AReplacedFileKeepsItsMode) {
  put("o", "old");
  fs::permissions(path("o"), fs::perms(0640));
  ASSERT_EQ(to("rerank", path("o"), {"--overwrite"}).exit_code, 0);
  EXPECT_EQ(fs::status(path("o")).permissions(), fs::perms(0640));
}

TEST_F(TinyOutput, RerankLeavesForeignFilesBesideItsOutputAlone) {
  const Args foreign = {"o.part-00", "o.part-aa", "o.part-1234", ".o.erank-tmp-1-2", "o~"};
  for (const auto& name : foreign) put(name, "foreign");
  for (const Args& how : {Args{}, Args{"--overwrite"}, Args{"--resume"}})
    EXPECT_EQ(to("rerank", path("o"), how).exit_code, 0);
  for (const auto& name : foreign) EXPECT_EQ(base::read_file(path(name)), "foreign") << name;
  fs::remove(path("o"));
  // What has the journal's name but is none stops every way to begin.
  for (const char* name : {"o.journal", "o.journal-wal", "o.journal-shm"}) {
    for (const std::string bytes : {"foreign", ""}) {
      put(name, bytes);
      for (const Args& how : {Args{}, Args{"--overwrite"}, Args{"--resume"}})
        expect_refused(to("rerank", path("o"), how), "is none; move it away");
      EXPECT_EQ(base::read_file(path(name)), bytes);
      EXPECT_FALSE(fs::exists(path("o")));
    }
    fs::remove(path(name));
  }
}

TEST_F(TinyOutput, AStreamHasNoJournal) {
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  for (const std::string& out :
       {path("fifo"), std::string("/dev/stdout"), std::string("/dev/null")})
    expect_refused(to("rerank", out, {"--resume"}), "is written as a stream, which has no journal");
  // Nor does it need --overwrite, or mind it.
  const Outcome o = to("rerank", "/dev/stdout", {"--overwrite"});
  EXPECT_EQ(o.exit_code, 0) << o.err;
  EXPECT_EQ(lines_of(o.out).size(), 2u);
}

TEST_F(TinyOutput, AReaderThatIsGoneIsOneLine) {
  std::string texts;
  for (int i = 0; i < 50000; ++i) texts += "{\"text\": \"a b\"}\n";
  put("texts.jsonl", texts);
  EXPECT_EQ(shell("\"$erank\" tokenize --model tiny --in texts.jsonl --out >(exec 0<&-) 2> got"),
            2);
  EXPECT_THAT(lines_of(base::read_file(path("got"))), ElementsAre(HasSubstr("Broken pipe")));
}

TEST_F(TinyOutput, ModelFoldersLoseNothingForeign) {
  const auto args = [&](const Args& more) {
    Args all = {"model", "random", "--shape", "tiny", "--overwrite", "--out", path("m")};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  ASSERT_EQ(run(args({})).exit_code, 0);
  for (const char* name : {"m/model-notes.safetensors", "m/model_best.safetensors", "m/notes"})
    put(name, "foreign");
  ASSERT_EQ(run(args({"--seed", "2"})).exit_code, 0);
  for (const char* name : {"m/model-notes.safetensors", "m/model_best.safetensors", "m/notes"})
    EXPECT_EQ(base::read_file(path(name)), "foreign");
  const auto before = contents();
  expect_refused(run(args({"--tokenizer", path("m")})), "is the same file as the input");
  put("file", "x");
  expect_refused(run({"model", "random", "--shape", "tiny", "--overwrite", "--out", path("file")}),
                 "is a file, expected a folder");
  fs::remove(path("file"));
  EXPECT_EQ(contents(), before);
}

}  // namespace
}  // namespace erank::cli
