#include "erank/text/tokenizer_export.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/text/prompt_format.h"
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

}  // namespace
}  // namespace erank::text
