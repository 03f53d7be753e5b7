#include "erank/text/tokenizer_export.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/text/prompt_format.h"
#include "erank/text/tokenizer_spec.h"
#include "tests/gguf_bytes.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

namespace erank::text {
namespace {

// The lines of model_texts.txt, \n and \t in them meant as such.
std::vector<std::string> golden_texts() {
  std::vector<std::string> texts(1);
  const std::string all =
      base::read_file(std::string(ERANK_SOURCE_DIR) + "/tests/golden/model_texts.txt");
  for (size_t i = 0; i < all.size(); ++i) {
    const bool escape = all[i] == '\\' && i + 1 < all.size();
    if (all[i] == '\n')
      texts.emplace_back();
    else if (escape && (all[i + 1] == 'n' || all[i + 1] == 't'))
      texts.back() += all[++i] == 'n' ? '\n' : '\t';
    else
      texts.back() += all[i];
  }
  texts.pop_back();
  return texts;
}

struct RealModel {
  const char *name, *file, *golden;
};

class RealTokenizer : public ::testing::TestWithParam<RealModel> {
 protected:
  void SetUp() override {
    path_ = base::cache_folder() + "/models/" + GetParam().file;
    if (!base::file_exists(path_)) GTEST_SKIP() << path_ << " is not there; tools/setup fetches it";
    const std::string golden = std::string(ERANK_SOURCE_DIR) + "/tests/golden/" + GetParam().golden;
    ids_ = base::parse_json(base::read_file(golden), golden)["ids"];
    texts_ = golden_texts();
    ASSERT_EQ(texts_.size(), 50u);
    ASSERT_EQ(ids_.size(), 50u);
  }
  void expect_golden_ids(const Tokenizer& tokenizer) const {
    for (size_t i = 0; i < texts_.size(); ++i)
      EXPECT_EQ(tokenizer.encode(texts_[i]), ids_[i].get<Ids>()) << texts_[i];
  }
  std::string path_;
  base::Json ids_;
  std::vector<std::string> texts_;
};

TEST_P(RealTokenizer, GivesTheReferencesIdsOf50RealTexts) {
  expect_golden_ids(Tokenizer::load(path_));
}

TEST_P(RealTokenizer, IsTheSameWhenWrittenAsAFolder) {
  const TestFolder folder;
  copy_tokenizer(path_, folder.path());
  const Tokenizer header = Tokenizer::load(path_), written = Tokenizer::load(folder.path());
  expect_golden_ids(written);
  EXPECT_EQ(written.chat_template(), header.chat_template());
  EXPECT_EQ(written.eos_id(), header.eos_id());
  EXPECT_EQ(written.special("<|im_end|>"), header.special("<|im_end|>"));
  const TestFolder copy;
  copy_tokenizer(folder.path(), copy.path());
  EXPECT_EQ(base::read_file(copy.path() + "/tokenizer.json"),
            base::read_file(folder.path() + "/tokenizer.json"));
}

INSTANTIATE_TEST_SUITE_P(Gguf, RealTokenizer,
                         ::testing::Values(RealModel{"SmolLm2", "SmolLM2-135M-Instruct.Q4_1.gguf",
                                                     "model_real_smollm2.json"},
                                           RealModel{"Qwen2",
                                                     "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                                                     "model_real_qwen2.json"}),
                         [](const auto& info) { return info.param.name; });

TEST(ByteTokenizer, EncodesAnyTextAsItsBytesAndDecodesEveryId) {
  const TestFolder folder;
  write_byte_tokenizer(300, folder.path());
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  EXPECT_EQ(tokenizer.vocab_size(), 300);
  EXPECT_EQ(tokenizer.encode("a10 \xc3\xa9~270"),
            (Ids{'a', '1', '0', ' ', 0xc3, 0xa9, '~', '2', '7', '0'}));
  EXPECT_EQ(tokenizer.encode("<think>").size(), 7u);
  EXPECT_EQ(tokenizer.encode("<think>", {.parse_specials = true}), Ids{259});
  for (int32_t id = 0; id < 300; ++id) EXPECT_FALSE(tokenizer.bytes_of(id).empty()) << id;
  EXPECT_EQ(tokenizer.eos_id(), 258);
}

TEST(ByteTokenizer, HasATemplateThatPromptFormatRuns) {
  const TestFolder folder;
  write_byte_tokenizer(kMinByteVocabulary, folder.path());
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  const PromptFormat format(tokenizer, {});
  EXPECT_EQ(format.prefix(), "<|im_start|>user\n");
  EXPECT_EQ(format.suffix(), "<|im_end|>\n<|im_start|>assistant\n");
}

TEST(CopyTokenizer, RefusesAFolderWithoutOneBeforeWritingAnything) {
  const TestFolder source, target;
  EXPECT_THROW(copy_tokenizer(source.path(), target.path()), base::Error);
  EXPECT_TRUE(std::filesystem::is_empty(target.path()));
}

TEST(AdapterTokenizer, ItsTemplateOrAllOfItTakesTheModelsPlace) {
  const TestFolder model, adapter;
  write_byte_tokenizer(300, model.path());
  const std::string own = Tokenizer::load(model.path()).chat_template();
  const auto loaded = [&] { return Tokenizer::load(model.path(), adapter.path()); };
  EXPECT_EQ(loaded().chat_template(), own);
  adapter.write("tokenizer_config.json", R"({"eos_token": "no such token"})");
  EXPECT_EQ(loaded().chat_template(), own) << "a configuration alone is no tokenizer";
  adapter.write("tokenizer_config.json", R"({"chat_template": "in the configuration"})");
  EXPECT_EQ(loaded().chat_template(), "in the configuration");
  adapter.write("chat_template.jinja", "in a file");
  EXPECT_EQ(loaded().chat_template(), "in a file");
  EXPECT_EQ(loaded().vocab_size(), 300);
  EXPECT_EQ(loaded().eos_id(), 258);
  EXPECT_EQ(loaded().where(), model.path() + "/tokenizer.json");
  const TestFolder merged;
  copy_tokenizer(model.path(), merged.path(), adapter.path());
  EXPECT_EQ(Tokenizer::load(merged.path()).chat_template(), "in a file");
  EXPECT_EQ(Tokenizer::load(merged.path()).vocab_size(), 300);
  const TestFolder trained;
  copy_own_tokenizer(adapter.path(), trained.path());
  EXPECT_EQ(Tokenizer::load(model.path(), trained.path()).chat_template(), "in a file");

  write_byte_tokenizer(301, adapter.path());
  EXPECT_EQ(loaded().vocab_size(), 301);
  EXPECT_EQ(loaded().where(), adapter.path() + "/tokenizer.json");
  const TestFolder whole;
  copy_tokenizer(model.path(), whole.path(), adapter.path());
  EXPECT_EQ(Tokenizer::load(whole.path()).vocab_size(), 301);
}

// Digits one by one are Qwen's way, GPT-2 takes them together.
TEST(GgufTokenizer, SplitsAsItsPreTokenizersNameSays) {
  namespace bytes = testing::gguf_bytes;
  const auto strings = [](const std::vector<std::string>& all) {
    std::string out = bytes::u32(bytes::kString) + bytes::u64(all.size());
    for (const auto& one : all) out += bytes::text(one);
    return out;
  };
  const auto ids = [&](const char* pre) {
    std::vector<std::string> pieces;
    for (int b = 0; b < 256; ++b)
      pieces.push_back(spell_bytes(std::string(1, static_cast<char>(b))));
    pieces.push_back("12");
    const TestFolder folder;
    const std::string path = folder.write(
        "model.gguf",
        bytes::gguf({bytes::key("tokenizer.ggml.model", bytes::kString, bytes::text("gpt2")),
                     bytes::key("tokenizer.ggml.pre", bytes::kString, bytes::text(pre)),
                     bytes::key("tokenizer.ggml.tokens", bytes::kArray, strings(pieces)),
                     bytes::key("tokenizer.ggml.merges", bytes::kArray, strings({"1 2"}))},
                    {}, ""));
    return Tokenizer::load(path).encode("12");
  };
  EXPECT_EQ(ids("gpt-2"), Ids{256});
  EXPECT_EQ(ids("qwen2"), (Ids{'1', '2'}));
  EXPECT_EQ(ids("deepseek-r1-qwen"), (Ids{'1', '2'}));
  EXPECT_THROW(ids("deepseek-v3"), base::Error);
}

}  // namespace
}  // namespace erank::text
