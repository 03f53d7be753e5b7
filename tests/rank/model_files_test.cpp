#include "erank/rank/model_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/test_folder.h"

namespace erank::rank {
namespace {

namespace fs = std::filesystem;

TEST(WeightsDigest, IsOfWeightsAndTokenizerWhereverTheyLie) {
  const TestFolder folder;
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"})
    folder.write(std::string("a/") + name, name);
  const std::string digest = weights_digest(folder.path("a"));
  fs::copy(folder.path("a"), folder.path("b"));
  EXPECT_EQ(weights_digest(folder.path("b")), digest);
  for (const char* other : {"erank.json", "notes.txt", "adapter_model.safetensors"})
    folder.write(std::string("b/") + other, "x");
  EXPECT_EQ(weights_digest(folder.path("b")), digest);
  for (const char* name : {"config.json", "model.safetensors", "tokenizer.json"}) {
    folder.write(std::string("b/") + name, std::string("x") + (name + 1));
    EXPECT_NE(weights_digest(folder.path("b")), digest) << name;
    folder.write(std::string("b/") + name, name);
  }
  folder.write("b/merges.txt", "");
  EXPECT_NE(weights_digest(folder.path("b")), digest);
  EXPECT_NE(weights_digest(folder.path("a/model.safetensors")),
            weights_digest(folder.path("a/config.json")));
}

TEST(FilesDigest, IsOfTheModelAndNotOfTheCalibrationOfItsScores) {
  const TestFolder folder;
  folder.write("a/config.json", "{}");
  const std::string digest = files_digest({folder.path("a")});
  folder.write("a/calibration.json", "{}");
  folder.write("a/m.gguf.calibration.json", "{}");
  EXPECT_EQ(files_digest({folder.path("a")}), digest);
  folder.write("a/erank.json", "{}");
  EXPECT_NE(files_digest({folder.path("a")}), digest);
}

TEST(FilesDigest, ReadsEveryByteOfATextAndNotItsName) {
  const TestFolder folder;
  std::string text(size_t{35} << 20, 'a');  // more than two pieces
  const std::string before = folder.write("corpus.jsonl", text);
  const std::string moved = folder.write("elsewhere/renamed.jsonl", text);
  EXPECT_EQ(files_digest({moved}), files_digest({before}));
  EXPECT_EQ(file_digest(moved), file_digest(before));
  for (const size_t place : {size_t{1}, text.size() / 3 + 7, text.size() - 1}) {
    text[place] = 'b';
    const std::string changed = folder.write("changed.jsonl", text);
    EXPECT_NE(files_digest({changed}), files_digest({before})) << place;
    EXPECT_NE(file_digest(changed), file_digest(before)) << place;
    text[place] = 'a';
  }
  // Two files are not one of both, and what they are in a folder is by their names.
  EXPECT_NE(files_digest({before, ""}), files_digest({before, moved}));
  folder.write("a/config.json", "x"), folder.write("b/vocab.json", "x");
  EXPECT_NE(files_digest({folder.path("a")}), files_digest({folder.path("b")}));
}

TEST(FilesDigest, OfAModelFileIsTheSameUnderAnotherName) {
  const TestFolder folder;
  const std::string weights(size_t{3} << 20, 'w');
  const std::string before = folder.write("m.gguf", weights);
  const std::string renamed = folder.write("models/other.gguf", weights);
  EXPECT_EQ(files_digest({renamed, "", ""}), files_digest({before, "", ""}));
  EXPECT_NE(files_digest({folder.write("m2.gguf", weights + "w")}), files_digest({before}));
}

TEST(WeightsDigest, OfALargeFileReadsSizeHeadAndBlocks) {
  const TestFolder folder;
  const std::string path = folder.write("big.gguf", "x");
  const size_t size = (size_t{256} << 20) + 5000;
  fs::resize_file(path, size);  // sparse
  const std::string digest = weights_digest(path);
  const auto with_byte_at = [&](size_t offset) {
    const auto put = [&](char byte) {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(offset));
      file.put(byte);
    };
    put(1);
    std::string changed = weights_digest(path);
    put(0);
    return changed;
  };
  for (const size_t offset : {size_t{70}, size_t{1} << 19, (size - 4096) / 1023 * 500, size - 1025})
    EXPECT_NE(with_byte_at(offset), digest) << offset;
  EXPECT_EQ(with_byte_at((size_t{1} << 20) + 8192), digest);  // between two blocks
  fs::resize_file(path, size + 1);
  EXPECT_NE(weights_digest(path), digest);
}

}  // namespace
}  // namespace erank::rank
