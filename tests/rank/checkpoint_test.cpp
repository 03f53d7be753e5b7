#include "erank/rank/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "erank/base/error.h"
#include "erank/base/files.h"

namespace erank::rank {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

// A folder of its own, which is the cache too.
class FindCheckpoint : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::path(::testing::TempDir()) / "erank_find_checkpoint" /
            ::testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(root_);
    fs::create_directories(root_ / "models");
    fs::create_directories(root_ / "folder");
    fs::create_directories(root_ / "base");
    ::setenv("ERANK_CACHE", root_.c_str(), 1);
  }
  void TearDown() override { ::unsetenv("ERANK_CACHE"); }

  std::string put(const std::string& name, const std::string& bytes) const {
    base::write_file_atomic(root_ / name, bytes);
    return root_ / name;
  }
  std::string folder() const { return root_ / "folder"; }

  static std::string message(const std::string& path) {
    try {
      find_checkpoint(path);
    } catch (const base::Error& e) {
      EXPECT_THAT(e.what(), ::testing::Not(HasSubstr("\n")));
      return e.what();
    }
    return "no error";
  }

  fs::path root_;
};

TEST_F(FindCheckpoint, ReadsAPlainModelFolderAsAPublishedErankModel) {
  put("folder/config.json", "{}");
  const Checkpoint c = find_checkpoint(folder() + "/");
  EXPECT_EQ(c.name, "folder");
  EXPECT_EQ(c.weights, folder() + "/");
  EXPECT_FALSE(c.adapter);
  EXPECT_EQ(c.defaults.mode, Mode::kThink);
  EXPECT_EQ(c.defaults.score, ScoreKind::kPaper);
  EXPECT_EQ(c.defaults.max_think_tokens, 4096);
  EXPECT_EQ(c.defaults.prompt.layout, text::Layout::kPaper);
  EXPECT_FALSE(c.defaults.prompt.lower_capitals);
}

TEST_F(FindCheckpoint, TakesWhatErankJsonSays) {
  put("folder/config.json", "{}");
  put("folder/erank.json",
      R"({"layout": "passage-last", "scale": "0-3", "mode": "direct", "score": "integer", "instruction": "I.",
          "max_query_tokens": 11, "max_document_tokens": 12, "max_think_tokens": 13,
          "lower_capitals": true, "int8": true,
          "think_open": "a", "think_close": "b", "direct_close": "c"})");
  const CheckpointDefaults d = find_checkpoint(folder()).defaults;
  EXPECT_EQ(d.prompt.scale, text::Scale::kZeroToThree);
  EXPECT_EQ(to_json(d)["scale"], "0-3");
  EXPECT_FALSE(to_json(CheckpointDefaults{}).contains("scale"));
  EXPECT_EQ(d.mode, Mode::kDirect);
  EXPECT_EQ(d.score, ScoreKind::kInteger);
  EXPECT_EQ(d.instruction, "I.");
  EXPECT_EQ(d.max_think_tokens, 13);
  EXPECT_TRUE(d.prompt.lower_capitals);
  EXPECT_TRUE(d.int8);
  EXPECT_FALSE(to_json(d).contains("int8"));  // what is trained from it was not measured
  EXPECT_EQ(d.prompt.layout, text::Layout::kPassageLast);
  EXPECT_EQ(d.prompt.max_query_tokens, 11);
  EXPECT_EQ(d.prompt.max_document_tokens, 12);
  EXPECT_EQ(d.prompt.think_open, "a");
  EXPECT_EQ(d.prompt.think_close, "b");
  EXPECT_EQ(d.prompt.direct_close, "c");
}

TEST_F(FindCheckpoint, RefusesUnknownKeysAndValues) {
  put("folder/config.json", "{}");
  const auto with = [&](const std::string& json) {
    put("folder/erank.json", json);
    return message(folder());
  };
  EXPECT_THAT(with(R"({"lay_out": "paper"})"), HasSubstr("lay_out"));
  EXPECT_THAT(with(R"({"layout": "sideways"})"), HasSubstr("sideways"));
  EXPECT_THAT(with(R"({"scale": "0-5"})"), HasSubstr("'0-5', expected yes-no, 0-3 or 0-10"));
  EXPECT_THAT(with(R"({"mode": "thinking"})"), HasSubstr("thinking"));
  EXPECT_THAT(with(R"({"score": "mean"})"), HasSubstr("mean"));
  EXPECT_THAT(with(R"({"lower_capitals": "yes"})"), HasSubstr("lower_capitals"));
  EXPECT_THAT(with(R"({"int8": 8})"), HasSubstr("int8"));
  EXPECT_THAT(with(R"({"max_think_tokens": 0})"), HasSubstr("max_think_tokens"));
  EXPECT_THAT(with(R"({"max_think_tokens": "9"})"), HasSubstr("max_think_tokens"));
  EXPECT_THAT(with("[]"), HasSubstr("object"));
  EXPECT_THAT(with("{"), HasSubstr("erank.json"));
}

TEST_F(FindCheckpoint, FindsTheBaseOfAnAdapterFolderInTheCache) {
  const std::string base = put("models/base.gguf", "abc");
  put("folder/adapter_config.json", "{}");
  // SHA-256 of "abc", FIPS 180-4.
  put("folder/erank.json",
      R"({"base": {"file": "base.gguf", "sha256":
          "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}})");
  const Checkpoint c = find_checkpoint(folder());
  EXPECT_EQ(c.weights, base);
  EXPECT_EQ(c.adapter, folder());
  fs::remove(root_ / "folder/adapter_config.json");
  EXPECT_FALSE(find_checkpoint(folder()).adapter);
}

TEST_F(FindCheckpoint, NamesTheSetUpCommandWhenTheBaseIsMissingOrDamaged) {
  put("folder/erank.json", R"({"base": {"file": "base.gguf", "sha256": "00"}})");
  EXPECT_THAT(message(folder()), HasSubstr("tools/setup"));
  EXPECT_THAT(message(folder()), HasSubstr("base.gguf"));
  put("models/base.gguf", "abc");
  EXPECT_THAT(message(folder()), HasSubstr("tools/setup"));
  EXPECT_THAT(message(folder()), HasSubstr("ba7816bf"));
  put("folder/erank.json", R"({"base": {"file": "base.gguf", "md5": "00"}})");
  EXPECT_THAT(message(folder()), HasSubstr("md5"));
}

TEST_F(FindCheckpoint, NamesHomeWhereWithoutItNoCacheFolderIsKnown) {
  put("folder/erank.json", R"({"base": {"file": "none.gguf", "sha256": "00"}})");
  const char* variables[] = {"ERANK_CACHE", "XDG_CACHE_HOME", "HOME"};
  std::map<std::string, std::string> before;
  for (const char* name : variables)
    if (const char* value = std::getenv(name)) before[name] = value;
  for (const char* name : variables) ::unsetenv(name);
  const std::string without = message(folder()), cache = base::cache_folder();
  for (const auto& [name, value] : before) ::setenv(name.c_str(), value.c_str(), 1);
  EXPECT_EQ(cache, "");
  EXPECT_THAT(without, HasSubstr("needs the base model none.gguf, and HOME is not set"));
  EXPECT_THAT(message(folder()), HasSubstr("run tools/setup"));
}

TEST_F(FindCheckpoint, TakesAGgufFileAndNoOther) {
  const std::string file = put("model.gguf", "x");
  EXPECT_EQ(find_checkpoint(file).weights, file);
  EXPECT_THAT(message(put("model.bin", "x")), HasSubstr(".gguf"));
}

TEST_F(FindCheckpoint, SaysHowToUseABareAdapterAndHowToFetchAModel) {
  put("folder/adapter_config.json", R"({"base_model_name_or_path": "Qwen/Qwen3-0.6B"})");
  EXPECT_THAT(message(folder()), HasSubstr("a PEFT adapter of Qwen/Qwen3-0.6B without its base"));
  EXPECT_THAT(message(folder()), HasSubstr("--adapter"));
  put("folder/adapter_config.json", "{}");
  EXPECT_THAT(message(folder()), HasSubstr("a PEFT adapter without its base"));
  EXPECT_THAT(message("Qwen/Qwen3-0.6B"),
              HasSubstr("`hf download Qwen/Qwen3-0.6B --local-dir Qwen3-0.6B`"));
  for (const char* path : {"nowhere", "a/b/c", "./nowhere", "../nowhere", "a /b", "/nowhere"})
    EXPECT_THAT(message(path), Not(HasSubstr("hf download"))) << path;
}

TEST_F(FindCheckpoint, AConfigurationBesideAnAdapterMakesNoModelOfIt) {
  put("folder/config.json", "{}");
  put("folder/adapter_config.json", R"({"base_model_name_or_path": "Qwen/Qwen3-0.6B"})");
  EXPECT_THAT(message(folder()), HasSubstr("a PEFT adapter of Qwen/Qwen3-0.6B without its base"));
  put("base/config.json", "{}");
  put("folder/erank.json", R"({"base": {"folder": "../base"}})");
  EXPECT_EQ(find_checkpoint(folder()).weights, (root_ / "base").string());
  EXPECT_EQ(find_checkpoint(folder()).adapter, folder());
  put("folder/model.safetensors", "x");
  EXPECT_EQ(find_checkpoint(folder()).weights, folder());
  EXPECT_FALSE(find_checkpoint(folder()).adapter);
}

TEST_F(FindCheckpoint, NamesTheGgufInAFolder) {
  put("folder/README.md", "x");
  const std::string file = put("folder/model-q8.gguf", "x");
  EXPECT_THAT(message(folder()), HasSubstr("a folder with a .gguf file; give it: --model " + file));
  const std::string first = put("folder/a-00001-of-00002.gguf", "x");
  put("folder/a-00002-of-00002.gguf", "x");
  EXPECT_THAT(message(folder()), HasSubstr("2 .gguf files; give one of them: --model " + first));
  put("folder/config.json", "{}");
  EXPECT_EQ(find_checkpoint(folder()).weights, folder());
}

TEST_F(FindCheckpoint, RefusesAFolderWithoutAnythingAndAPathThatIsNotThere) {
  EXPECT_THAT(message(folder()), HasSubstr("config.json"));
  EXPECT_THAT(message(folder() + "/nowhere"), HasSubstr("no such"));
}

}  // namespace
}  // namespace erank::rank
