#include "erank/data/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "tests/fuzz/memory_file.h"
#include "tests/shared_data.h"

namespace erank::data {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;

std::string length_bytes(uint64_t length) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof length);
}

// A whole file: length, header, `data_bytes` zeros.
std::string file_of(const std::string& header, size_t data_bytes) {
  return length_bytes(header.size()) + header + std::string(data_bytes, '\0');
}

TensorInfo declared(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  TensorInfo info;
  info.name = name;
  info.dtype = dtype;
  info.shape = std::move(shape);
  return info;
}

class Safetensors : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) /
              base::str("erank_safetensors_", ::getpid(), "_",
                        ::testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string path(const std::string& name = "x.safetensors") const { return folder_ / name; }

  void put(const std::string& bytes, const std::string& name = "x.safetensors") const {
    FILE* file = std::fopen(path(name).c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
  }

  // A file of one float for each name.
  void put_floats(const std::string& name, const std::vector<std::string>& tensors) const {
    std::vector<TensorInfo> infos;
    for (const auto& tensor : tensors) infos.push_back(declared(tensor, DType::kF32, {1}));
    SafetensorsWriter writer(path(name), infos);
    writer.write(std::vector<uint8_t>(4 * tensors.size()));
    writer.commit();
  }

  static std::string message(const std::function<void()>& body) {
    try {
      body();
    } catch (const base::Error& e) {
      return e.what();
    }
    return "(no error)";
  }

  // The message of the Error{kCorrupt} that opening these bytes throws, or "(opened)".
  std::string refusal(const std::string& bytes) const {
    const std::string path =
        file_.hold(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    try {
      SafetensorsFile::open(path);
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kCorrupt) << e.what();
      EXPECT_THAT(e.what(), HasSubstr(path));
      return e.what();
    }
    return "(opened)";
  }

  std::string index_refusal(const std::string& index) const {
    put(index, "model.safetensors.index.json");
    return message([&] { safetensors_files(folder_); });
  }

  std::filesystem::path folder_;
  fuzz::MemoryFile file_{"safetensors"};
};

TEST_F(Safetensors, ReadsBackWhatItWrote) {
  const std::vector<TensorInfo> tensors = {declared("model.embed.weight", DType::kF32, {2, 3}),
                                           declared("half \"é\"", DType::kF16, {5}),
                                           declared("none", DType::kBF16, {4, 0, 7}),
                                           declared("scalar", DType::kI64, {}),
                                           declared("i32", DType::kI32, {1}),
                                           declared("bytes", DType::kU8, {3})};
  std::vector<uint8_t> bytes(24 + 10 + 0 + 8 + 4 + 3);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 7 + 1);
  SafetensorsWriter writer(path(), tensors, {{"format", "pt"}, {"note", "a\nb"}});
  writer.write(std::span(bytes).first(5));
  writer.write(std::span(bytes).subspan(5));
  writer.commit();

  const SafetensorsFile file = SafetensorsFile::open(path());
  EXPECT_EQ(file.metadata(),
            (std::map<std::string, std::string>{{"format", "pt"}, {"note", "a\nb"}}));
  ASSERT_EQ(file.tensors().size(), tensors.size());
  const uint8_t* expected = bytes.data();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& info = file.tensors()[i];
    EXPECT_EQ(info.name, tensors[i].name);
    EXPECT_EQ(info.dtype, tensors[i].dtype);
    EXPECT_EQ(info.shape, tensors[i].shape);
    const auto got = file.bytes(info);
    ASSERT_EQ(got.size(), *tensor_bytes(info.dtype, info.shape));
    EXPECT_TRUE(std::equal(got.begin(), got.end(), expected));
    expected += got.size();
  }
  EXPECT_EQ(file.tensors()[0].begin % 8, 0u);
}

TEST_F(Safetensors, WritesFilesLargerThanItsBuffer) {
  std::vector<uint8_t> bytes(5'000'001);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 2654435761u >> 13);
  SafetensorsWriter writer(path(), {declared("x", DType::kU8, {5'000'001})});
  writer.write(bytes);
  writer.commit();
  const SafetensorsFile file = SafetensorsFile::open(path());
  const auto got = file.bytes(file.tensors()[0]);
  EXPECT_TRUE(std::equal(got.begin(), got.end(), bytes.begin(), bytes.end()));
}

TEST_F(Safetensors, WriterRefusesOurOwnMistakes) {
  const auto x = declared("x", DType::kU8, {2});
  EXPECT_THROW(SafetensorsWriter(path(), {x, x}), base::InternalError);
  EXPECT_THROW(SafetensorsWriter(path(), {declared("__metadata__", DType::kU8, {2})}),
               base::InternalError);
  EXPECT_THROW(SafetensorsWriter(path(), {declared("q", DType::kQ8_0, {32})}), base::InternalError);
  EXPECT_THROW(SafetensorsWriter(path(), {declared("n", DType::kF32, {-1})}), base::InternalError);
  {
    SafetensorsWriter writer(path(), {x});
    EXPECT_THROW(writer.write(std::vector<uint8_t>(3)), base::InternalError);
    writer.write(std::vector<uint8_t>(1));
    EXPECT_THROW(writer.commit(), base::InternalError);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_)) << "an unfinished write left a file";
}

TEST_F(Safetensors, RefusesAFileThatIsCutOffAnywhere) {
  put_floats("whole.safetensors", {"a", "b", "c"});
  const std::string whole = base::read_file(path("whole.safetensors"));
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(refusal(whole.substr(0, size)), "(opened)") << size << " bytes of " << whole.size();
  EXPECT_THAT(refusal(whole + "x"), HasSubstr("1 bytes at the end belong to no tensor"));
}

TEST_F(Safetensors, GivesAnErrorOrASoundFileWhateverByteIsWrong) {
  put_floats("whole.safetensors", {"a", "b", "c"});
  const std::string whole = base::read_file(path("whole.safetensors"));
  for (size_t at = 0; at < whole.size(); ++at)
    for (const char change : {'\x01', '\x80', '\xff', '\x10'}) {
      std::string bytes = whole;
      bytes[at] ^= change;
      if (refusal(bytes) != "(opened)") continue;
      const SafetensorsFile file = SafetensorsFile::open(file_.path());
      for (const TensorInfo& info : file.tensors()) {
        ASSERT_LE(info.begin, info.end);
        ASSERT_LE(info.end, bytes.size());
        EXPECT_EQ(tensor_bytes(info.dtype, info.shape), file.bytes(info).size());
      }
    }
}

TEST_F(Safetensors, NamesWhatIsWrongInTheHeader) {
  struct Case {
    const char* header;
    size_t data_bytes;
    const char* says;
  };
  const Case cases[] = {
      {"", 0, "not JSON"},
      {"[]", 0, "a list in the header"},
      {"7", 0, "a number in the header"},
      {"{} {}", 0, "not JSON"},
      {"{", 0, "not JSON"},
      {"{\"a\xff\":null}", 0, "not JSON"},
      {R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "without a name"},
      {R"({"a":null})", 0, "null in the header at 'a'"},
      {R"({"a":[]})", 0, "a list in the header at 'a'"},
      {R"({"a":{}})", 0, "tensor 'a': needs dtype, shape and data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "needs dtype, shape"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "needs dtype, shape"},
      {R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "needs dtype, shape"},
      {R"({"a":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}})", 1,
       "element type 'F8_E5M2'"},
      {R"({"a":{"dtype":"Q8_0","shape":[32],"data_offsets":[0,34]}})", 34, "element type 'Q8_0'"},
      {R"({"a":{"dtype":32,"shape":[1],"data_offsets":[0,4]}})", 4, "a number in 'dtype'"},
      {R"({"a":{"dtype":["F32"],"shape":[1],"data_offsets":[0,4]}})", 4, "a list in 'dtype'"},
      {R"({"a":{"dtype":"F32","shape":1,"data_offsets":[0,4]}})", 4, "a number in 'shape'"},
      {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "a list in 'shape'"},
      {R"({"a":{"dtype":"F32","shape":["1"],"data_offsets":[0,4]}})", 4, "a string in 'shape'"},
      {R"({"a":{"dtype":"F32","shape":{},"data_offsets":[0,4]}})", 4, "an object in 'shape'"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "with a fraction"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "a negative number"},
      {R"({"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}})", 4, "true or false"},
      {R"({"a":{"dtype":"F32","shape":null,"data_offsets":[0,4]}})", 4, "null in 'shape'"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
       "has 4 bytes, but its type and shape need 8"},
      {R"({"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}})", 4,
       "shape holds 9223372036854775808"},
      {R"({"a":{"dtype":"F32","shape":[99999999999999999999999],"data_offsets":[0,4]}})", 4,
       "over 2^64"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}})", 4,
       "more than 2^63"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "more than 2^63"},
      {R"({"a":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "more than 2^63"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "lie outside"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 4, "lie outside"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,9223372036854775808]}})", 4,
       "data_offsets holds 9223372036854775808"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[9223372036854775803,9223372036854775807]}})",
       4, "lie outside"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "needs dtype, shape"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 8, "more than [begin, end]"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"strides":[1]}})", 4,
       "unknown key 'strides'"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4,
       "key 'dtype' is given twice"},
      {R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4,
       "key 'shape' is given twice"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
       2, "tensor 'a' is given twice"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "tensor 'b' begins inside another tensor"},
      {R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})",
       2, "tensor 'b' begins inside another tensor"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
       3, "tensor 'b' begins after bytes that no tensor uses"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "begins after bytes"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 2, "1 bytes at the end"},
      {R"({"__metadata__":{"a":1}})", 0, "a number in the header at '__metadata__'"},
      {R"({"__metadata__":{"a":{}}})", 0, "an object in the header at '__metadata__'"},
      {R"({"__metadata__":{"a":["x"]}})", 0, "a list in the header at '__metadata__'"},
      {R"({"__metadata__":{"a":"x","a":"y"}})", 0, "metadata key 'a' is given twice"},
      {R"({"__metadata__":{"a":"x"},"__metadata__":{"b":"y"}})", 0,
       "'__metadata__' is given twice"},
      {R"({"__metadata__":"x"})", 0, "a string in the header"},
  };
  for (const Case& c : cases)
    EXPECT_THAT(refusal(file_of(c.header, c.data_bytes)), HasSubstr(c.says)) << c.header;
}

TEST_F(Safetensors, AcceptsWhatWritersReallyWrite) {
  EXPECT_EQ(refusal(file_of("{}", 0)), "(opened)");
  EXPECT_EQ(refusal(file_of("{\"__metadata__\":null}    ", 0)), "(opened)");
  EXPECT_EQ(refusal(file_of(R"({"a":{"data_offsets":[0,1],"shape":[],"dtype":"U8"}})", 1)),
            "(opened)");
  // The order of the names is free, and a tensor without values may be anywhere.
  EXPECT_EQ(refusal(file_of(R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},)"
                            R"("none":{"dtype":"F32","shape":[0],"data_offsets":[1,1]},)"
                            R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                            2)),
            "(opened)");
  const SafetensorsFile file = SafetensorsFile::open(file_.path());
  EXPECT_EQ(file.tensors()[0].name, "a");
  EXPECT_EQ(file.tensors()[1].name, "none");
  EXPECT_EQ(file.tensors()[2].name, "b");
}

TEST_F(Safetensors, RefusesAHeaderLongerThanTheLimitOrTheFile) {
  for (const uint64_t length : {uint64_t{1} << 63, UINT64_MAX, UINT64_MAX - 7, uint64_t{100}})
    EXPECT_THAT(refusal(length_bytes(length) + "{}"), HasSubstr("claims a header of"));
  put(length_bytes(100'000'001));
  std::filesystem::resize_file(path(), 200'000'000);
  EXPECT_THAT(message([&] { SafetensorsFile::open(path()); }), HasSubstr("at most 100,000,000"));
}

TEST_F(Safetensors, StopsAtTheFirstFaultOfAHugeHeader) {
  // Both are cut off, which only a reader that went on to the end would complain about.
  std::string header = R"({"a":{"shape":[[)";
  header.resize(50'000'000, '[');
  EXPECT_THAT(refusal(file_of(header, 0)), HasSubstr("a list in 'shape'"));
  header = R"({"a":{"shape":[0)";
  while (header.size() < 50'000'000) header += ",0";
  EXPECT_THAT(refusal(file_of(header, 0)), HasSubstr("more than 64 dimensions"));
}

TEST_F(Safetensors, FindsOneFileOrEveryShard) {
  EXPECT_THAT(message([&] { safetensors_files(folder_); }), HasSubstr("has neither"));
  put_floats("s1.safetensors", {"a", "b"});
  put_floats("s2.safetensors", {"c"});
  put(R"({"metadata":{"total_size":12},"weight_map":)"
      R"({"a":"s1.safetensors","b":"s1.safetensors","c":"s2.safetensors"}})",
      "model.safetensors.index.json");
  EXPECT_THAT(safetensors_files(folder_),
              ElementsAre(path("s1.safetensors"), path("s2.safetensors")));
  put_floats("model.safetensors", {"a"});
  EXPECT_THAT(safetensors_files(folder_), ElementsAre(path("model.safetensors")));
}

TEST_F(Safetensors, AllowsShardsThatAreLinks) {
  std::filesystem::create_directories(folder_ / "blobs");
  std::filesystem::create_directories(folder_ / "snapshot");
  put_floats("blobs/0123.safetensors", {"a"});
  std::filesystem::create_symlink("../blobs/0123.safetensors", folder_ / "snapshot/s.safetensors");
  put(R"({"weight_map":{"a":"s.safetensors"}})", "snapshot/model.safetensors.index.json");
  EXPECT_THAT(safetensors_files(folder_ / "snapshot"), ElementsAre(path("snapshot/s.safetensors")));
}

TEST_F(Safetensors, RefusesAnIndexThatDisagreesWithItsShards) {
  put_floats("s1.safetensors", {"a", "b"});
  put_floats("s2.safetensors", {"c"});
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"s1.safetensors"}})"),
              HasSubstr("holds tensor 'b', which"));
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}})"),
              HasSubstr("holds tensor 'b', which"));
  EXPECT_THAT(index_refusal(R"({"weight_map":{"c":"s2.safetensors","d":"s2.safetensors"}})"),
              HasSubstr("lacks tensor 'd', which"));
  EXPECT_THAT(index_refusal(R"({"weight_map":{"c":"s3.safetensors"}})"),
              HasSubstr("s3.safetensors: is missing, but"));
}

TEST_F(Safetensors, RefusesAnIndexThatNamesItselfOrLeavesItsFolder) {
  put_floats("s1.safetensors", {"a"});
  for (const char* name :
       {"model.safetensors.index.json", "../s1.safetensors", "/etc/s1.safetensors",
        "./s1.safetensors", "x/../s1.safetensors", "..\\\\s1.safetensors",
        "s1.safetensors\\u0000.safetensors", "", ".", "..", "s1.bin"})
    EXPECT_THAT(index_refusal(base::str(R"({"weight_map":{"a":")", name, R"("}})")),
                HasSubstr("expected the name of a .safetensors file in the same folder"))
        << name;
  // An index under a shard's name is no shard.
  put(R"({"weight_map":{"a":"loop.safetensors"}})", "loop.safetensors");
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"loop.safetensors"}})"),
              HasSubstr("loop.safetensors: claims a header of"));
  std::filesystem::create_symlink("self.safetensors", folder_ / "self.safetensors");
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"self.safetensors"}})"), HasSubstr("is missing"));
  std::filesystem::create_directory(folder_ / "folder.safetensors");
  EXPECT_THAT(index_refusal(R"({"weight_map":{"a":"folder.safetensors"}})"),
              HasSubstr("is missing"));
}

TEST_F(Safetensors, RefusesAnIndexOfAnotherForm) {
  for (const char* index : {"{}", "[]", "7", R"({"weight_map":[]})", R"({"weight_map":{}})"})
    EXPECT_THAT(index_refusal(index), HasSubstr("has no 'weight_map'")) << index;
  for (const char* index :
       {R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":{"weight_map":{}}}})"})
    EXPECT_THAT(index_refusal(index), HasSubstr("tensor 'a' lies in no file")) << index;
  for (const char* index : {"", "{", R"({"weight_map":{"a":"s","a":"s"}})"})
    EXPECT_THAT(index_refusal(index), HasSubstr("index.json")) << index;
}

TEST_F(Safetensors, ReadsFilesThatOthersWrote) {
  const std::string root = erank::testing::shared_data("model-fixtures");
  if (root.empty()) GTEST_SKIP() << "the collection model-fixtures is not beside the repository";
  const SafetensorsFile qwen = SafetensorsFile::open(root + "/tiny-qwen3-f32/model.safetensors");
  EXPECT_EQ(qwen.tensors().size(), 25u);
  const SafetensorsFile gemma =
      SafetensorsFile::open(root + "/tiny-gemma-f16/gemma_hf_checkpoint.safetensors");
  EXPECT_EQ(gemma.tensors().size(), 11u);
  for (const TensorInfo& info : gemma.tensors()) EXPECT_EQ(info.dtype, DType::kF16) << info.name;

  const std::string sharded = root + "/gguf-and-shards/tiny_llama";
  for (const char* shard : {"-00001-of-00002.safetensors", "-00002-of-00002.safetensors"})
    std::filesystem::copy(sharded + shard, folder_);
  std::filesystem::copy(sharded + ".safetensors.index.json", path("model.safetensors.index.json"));
  const auto files = safetensors_files(folder_);
  ASSERT_EQ(files.size(), 2u);
  EXPECT_THAT(files[0], EndsWith("tiny_llama-00001-of-00002.safetensors"));

  EXPECT_THAT(message([&] { safetensors_files(root + "/mlxd-tiny_qwen3_sharded"); }),
              HasSubstr("element type 'U32'"));
}

}  // namespace
}  // namespace erank::data
