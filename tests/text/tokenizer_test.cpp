#include "erank/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <ctime>
#include <thread>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/base/utf8.h"
#include "erank/text/bpe_model.h"
#include "erank/text/tokenizer_nfc.h"
#include "tests/text/tokenizer_support.h"

namespace erank::text {
namespace {

using base::Json;
using ::testing::HasSubstr;

Tokenizer tokenizer_of(const Json& json) { return Tokenizer::from_json(base::dump_json(json)); }

Json added_token(const std::string& content, int id, bool special) {
  return {{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
}

// Merges that build `word` from left to right.
std::vector<std::pair<std::string, std::string>> merges_of(const std::string& word) {
  std::vector<std::pair<std::string, std::string>> merges;
  for (size_t i = 1; i < word.size(); ++i)
    merges.emplace_back(word.substr(0, i), word.substr(i, 1));
  return merges;
}

std::string refusal(const Json& json) {
  try {
    tokenizer_of(json);
  } catch (const base::Error& error) {
    return error.what();
  }
  return "";
}

TEST(Tokenizer, GivesThePublishedIdsOfQwensVocabulary) {
  const TestFolder folder;
  if (!unpack_qwen(folder)) GTEST_SKIP() << kNoQwen;
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  const std::string path = erank::testing::shared_data("qwen-tokenizer/vectors.published.json");
  const Json vectors = base::parse_json(base::read_file(path), path);
  EXPECT_EQ(vectors.size(), 49u);
  int with_specials = 0;
  for (const Json& vector : vectors) {
    const auto text = vector["text"].get<std::string>();
    const auto ids = vector["nfc_ids"].get<Ids>();
    const bool specials = text.find("<|") != std::string::npos;
    with_specials += specials;
    EXPECT_EQ(tokenizer.encode(text, {.parse_specials = specials}), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), text);
  }
  EXPECT_EQ(with_specials, 3);
  EXPECT_EQ(tokenizer.vocab_size(), 151669);
  EXPECT_EQ(tokenizer.special("<think>"), 151667);
  EXPECT_EQ(tokenizer.token_for("7"), 22);
  EXPECT_EQ(tokenizer.encode("<answer>"), (Ids{27, 9217, 29}));
}

TEST(Tokenizer, GivesThePublishedIdsOfTheToyVocabulary) {
  const std::string path = erank::testing::shared_data("qwen-tokenizer/vectors.toy_vocab.json");
  if (path.empty()) GTEST_SKIP() << "needs qwen-tokenizer of the shared data";
  const Json toy = base::parse_json(base::read_file(path), path);
  const TestFolder folder;
  folder.write("vocab.json", base::dump_json(toy["vocab"]));
  folder.write("added_tokens.json", base::dump_json(toy["special_tokens"]));
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : toy["merges"]) merges += merge.get<std::string>() + "\n";
  folder.write("merges.txt", merges);
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  for (const Json& vector : toy["cases"]) {
    const auto ids = vector["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.encode(vector["text"].get<std::string>(), {.parse_specials = true}), ids);
    if (vector.contains("decoded")) {
      EXPECT_EQ(tokenizer.decode(ids), vector["decoded"].get<std::string>());
    }
  }
  std::string storage;
  EXPECT_EQ(nfc(toy["nfc"]["in"].get<std::string>(), storage),
            toy["nfc"]["out"].get<std::string>());
}

TEST(Tokenizer, ReadsATokenizerJsonWithQwensSplitPattern) {
  const std::string folder = erank::testing::shared_data("model-fixtures/tiny-bpe-qwen2-split");
  if (folder.empty()) GTEST_SKIP() << "needs model-fixtures of the shared data";
  const Tokenizer tokenizer = Tokenizer::load(folder);
  const Json cases =
      base::parse_json(base::read_file(folder + "/cases.json"), "cases.json")["cases"];
  EXPECT_EQ(cases.size(), 15u);
  for (const Json& item : cases) {
    const auto text = item["text"].get<std::string>();
    const auto ids = item["ids"].get<Ids>();
    EXPECT_EQ(tokenizer.encode(text, {.parse_specials = true}), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), text);  // where the fixture leaves specials out, we write them
  }
}

TEST(Tokenizer, ReadsATokenizerJsonWhoseAddedTokensStandInTheConfig) {
  const std::string folder =
      erank::testing::shared_data("model-fixtures/tiny-bytelevel-bpe-tokenizer");
  if (folder.empty()) GTEST_SKIP() << "needs model-fixtures of the shared data";
  const Tokenizer tokenizer = Tokenizer::load(folder);
  EXPECT_EQ(tokenizer.vocab_size(), 2020);
  EXPECT_EQ(tokenizer.special("<|image|>"), 1998);
  const std::string text = "It's-12-o'clock.";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_EQ(tokenizer.encode(text).size(), text.size());      // it has no merges
  EXPECT_EQ(tokenizer.encode(" - "), tokenizer.encode("-"));  // and no piece for a space
  EXPECT_EQ(tokenizer.encode("<|image|>", {.parse_specials = true}), Ids{1998});
}

TEST(Tokenizer, ReadsTheHeaderOfAGgufFile) {
  const std::string model = base::cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!base::file_exists(model)) GTEST_SKIP() << "needs " << model << " (set-up fetches it)";
  const Tokenizer tokenizer = Tokenizer::load(model);
  EXPECT_EQ(tokenizer.vocab_size(), 49152);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  EXPECT_EQ(tokenizer.bos_token(), "<|im_start|>");
  EXPECT_EQ(tokenizer.eos_token(), "<|im_end|>");
  EXPECT_EQ(tokenizer.special("<|endoftext|>"), 0);
  EXPECT_EQ(tokenizer.token_for("<|endoftext|>"), std::nullopt);
  for (int digit = 0; digit < 10; ++digit)
    EXPECT_EQ(tokenizer.token_for(std::to_string(digit)), 32 + digit);
  EXPECT_THAT(tokenizer.chat_template(), HasSubstr("<|im_start|>assistant"));
  EXPECT_EQ(tokenizer.encode("<|im_end|>", {.parse_specials = true}), Ids{2});
  EXPECT_GT(tokenizer.encode("<|im_end|>").size(), 1u);
}

TEST(Tokenizer, NeverTurnsUserTextIntoASpecialId) {
  const std::string end = "<end>";
  for (const bool ignore_merges : {false, true}) {
    Json json = small_tokenizer(merges_of(end));  // the merges would build the special's piece
    const int id = json["model"]["vocab"][end].get<int>();
    json["added_tokens"] = {added_token(end, id, true)};
    json["model"]["ignore_merges"] = ignore_merges;
    json["pre_tokenizer"]["use_regex"] = false;
    const Tokenizer tokenizer = tokenizer_of(json);
    EXPECT_THAT(tokenizer.encode(end), ::testing::Not(::testing::Contains(id)));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(end)), end);
    EXPECT_EQ(tokenizer.encode(end, {.parse_specials = true}), Ids{id});
    EXPECT_EQ(tokenizer.token_for(end), std::nullopt);
    EXPECT_EQ(tokenizer.special(end), id);
  }
}

TEST(Tokenizer, ReadsMergesAsPairsAndAsStrings) {
  Json pairs = small_tokenizer({{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}});
  Json strings = pairs;
  for (Json& merge : strings["model"]["merges"])
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  EXPECT_EQ(tokenizer_of(pairs).encode("hello hell"), (Ids{259, ' ', 258}));
  EXPECT_EQ(tokenizer_of(strings).encode("hello hell"), (Ids{259, ' ', 258}));
}

TEST(Tokenizer, TakesAWholeWordOnlyWhenMergesAreIgnored) {
  Json json = small_tokenizer({{"a", "b"}, {"c", "d"}});
  json["model"]["vocab"]["abc"] = 300;
  EXPECT_EQ(tokenizer_of(json).encode("abc"), (Ids{256, 'c'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(tokenizer_of(json).encode("abc"), Ids{300});
  EXPECT_EQ(tokenizer_of(json).encode("abcd"), (Ids{256, 257}));
}

TEST(Tokenizer, RefusesByNameWhatItDoesNotKnow) {
  const Json good = small_tokenizer({{"a", "b"}});
  ASSERT_EQ(refusal(good), "");
  struct Case {
    const char* pointer;
    Json value;
    const char* message;
  };
  const Json template_processing = {
      {"type", "TemplateProcessing"},
      {"single", {{{"Sequence", {{"id", "A"}}}}, {{"SpecialToken", {{"id", "</s>"}}}}}}};
  const Json split = {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Isolated"}};
  const auto with = [](Json object, const char* key, const Json& value) {
    object[key] = value;
    return object;
  };
  const std::vector<Case> cases = {
      {"/normalizer", {{"type", "NFKC"}}, "normalizer 'NFKC'"},
      {"/normalizer",
       {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}},
       "normalizer 'Lowercase'"},
      {"/pre_tokenizer", {{"type", "Metaspace"}}, "pre_tokenizer 'Metaspace'"},
      {"/pre_tokenizer", nullptr, "no pre_tokenizer ByteLevel"},
      {"/pre_tokenizer", split, "no pre_tokenizer ByteLevel"},
      {"/pre_tokenizer", with(split, "behavior", "MergedWithNext"), "behavior 'MergedWithNext'"},
      {"/pre_tokenizer", with(split, "pattern", {{"Regex", "(a"}}), "split pattern '(a'"},
      {"/pre_tokenizer", with(split, "pattern", {{"Regex", "a\\b"}}), "'\\b' is not supported"},
      {"/pre_tokenizer", with(split, "pattern", {{"Regex", "[a&&b]"}}), "'&&' is not supported"},
      {"/pre_tokenizer", with(split, "pattern", {{"Regex", "\\p{Emoji}"}}),
       "'\\p{Emoji}' is not supported"},
      {"/pre_tokenizer", with(split, "pattern", {{"Regex", "a{2}+"}}), "'}+' is not supported"},
      {"/pre_tokenizer/surprise", 1, "surprise"},
      {"/model/type", "WordPiece", "type 'WordPiece'"},
      {"/model/byte_fallback", true, "'byte_fallback'"},
      {"/model/dropout", 0.1, "'dropout'"},
      {"/model/end_of_word_suffix", "</w>", "'end_of_word_suffix'"},
      {"/model/surprise", 1, "surprise"},
      {"/model/merges/0", "a b c", "merge 'a b c'"},
      {"/model/merges/0", 7, "merge 7"},
      {"/model/vocab/a", -1, "piece 'a' has id -1"},
      {"/model/vocab/a", 98, "id 98 has two pieces"},
      {"/model/vocab/a", int64_t{1} << 40, "piece 'a' has id"},
      {"/decoder", {{"type", "WordPiece"}}, "decoder 'WordPiece'"},
      {"/decoder", nullptr, "expected a decoder ByteLevel"},
      {"/post_processor", {{"type", "BertProcessing"}}, "post_processor 'BertProcessing'"},
      {"/post_processor", template_processing, "after the text"},
      {"/added_tokens", {added_token("x", 97, true)}, "added token 'x' has the id 97 of 'a'"},
      {"/added_tokens",
       {added_token("x", 300, true), added_token("x", 301, true)},
       "has ids 300 and 301"},
      {"/surprise", 1, "surprise"},
  };
  for (const Case& item : cases) {
    Json json = good;
    json[Json::json_pointer(item.pointer)] = item.value;
    EXPECT_THAT(refusal(json), HasSubstr(item.message)) << item.pointer;
  }
}

TEST(Tokenizer, ReadsAFolderWithoutTokenizerJson) {
  const Json model = small_tokenizer({{"a", "b"}})["model"];
  const TestFolder folder;
  EXPECT_THROW(Tokenizer::load(folder.path()), base::Error);
  folder.write("vocab.json", base::dump_json(model["vocab"]));
  folder.write("merges.txt", "#version: 0.2\r\na b\r\n");
  Json config = {
      {"tokenizer_class", "Qwen2TokenizerFast"},
      {"eos_token", {{"content", "<|im_end|>"}, {"lstrip", false}}},
      {"bos_token", nullptr},
      {"added_tokens_decoder", {{"300", {{"content", "<|im_end|>"}, {"special", true}}}}},
      {"chat_template",
       {{{"name", "tool_use"}, {"template", "no"}}, {{"name", "default"}, {"template", "yes"}}}}};
  folder.write("tokenizer_config.json", base::dump_json(config));
  folder.write("added_tokens.json", R"({"<|im_end|>": 300, "<tool>": 301})");
  const Tokenizer qwen = Tokenizer::load(folder.path());
  EXPECT_EQ(qwen.encode("ab 12"), (Ids{256, ' ', '1', '2'}));
  EXPECT_EQ(qwen.encode("e\u0301"), (Ids{0xc3, 0xa9}));
  EXPECT_EQ(qwen.encode("<tool><|im_end|>", {.parse_specials = true}), (Ids{301, 300}));
  EXPECT_EQ(qwen.eos_id(), 300);
  EXPECT_EQ(qwen.eos_token(), "<|im_end|>");
  EXPECT_EQ(qwen.bos_id(), std::nullopt);
  EXPECT_EQ(qwen.bos_token(), "");
  EXPECT_EQ(qwen.chat_template(), "yes");
  EXPECT_EQ(qwen.vocab_size(), 302);
  EXPECT_THROW(qwen.piece_of(299), base::Error);  // no token has this id

  folder.write("chat_template.jinja", "from the file");
  EXPECT_EQ(Tokenizer::load(folder.path()).chat_template(), "from the file");
  config["tokenizer_class"] = "GPT2Tokenizer";
  folder.write("tokenizer_config.json", base::dump_json(config));
  EXPECT_EQ(Tokenizer::load(folder.path()).encode("e\u0301"), (Ids{'e', 0xcc, 0x81}));
  config["tokenizer_class"] = "LlamaTokenizer";
  folder.write("tokenizer_config.json", base::dump_json(config));
  EXPECT_THROW(Tokenizer::load(folder.path()), base::Error);
  config["tokenizer_class"] = "Qwen2Tokenizer";
  config["eos_token"] = "<nothing>";
  folder.write("tokenizer_config.json", base::dump_json(config));
  EXPECT_THROW(Tokenizer::load(folder.path()), base::Error);
}

TEST(Tokenizer, ReadsInvalidUtf8AsReplacementCharacters) {
  const Tokenizer tokenizer = tokenizer_of(small_tokenizer({{"\xef", "\xbf"}}));
  for (const std::string text : {"\xff", "a\xc3", "\xed\xa0\x80z", "\xf0\x9f\x98", "\xc0\xaf"}) {
    EXPECT_EQ(tokenizer.encode(text), tokenizer.encode(base::sanitize_utf8(text)));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), base::sanitize_utf8(text));
  }
  EXPECT_EQ(tokenizer.decode({'a', 0xc3}), "a\ufffd");
  EXPECT_EQ(tokenizer.bytes_of(0xc3), "\xc3");
  EXPECT_EQ(tokenizer.piece_of(0xc3), "Ã");
  EXPECT_EQ(tokenizer.piece_of(' '), "Ġ");
  EXPECT_THROW(tokenizer.decode({257}), base::Error);
  EXPECT_THROW(tokenizer.decode({-1}), base::Error);
}

// A character of each kind that the splitters and NFC tell apart, or a random one.
std::string random_text(base::Random& random, size_t num_characters) {
  static const char32_t kKinds[] = {'a',    'E',    ' ',    '\n',  '\r',   '\'',    '1',    '.',
                                    0xe9,   0x301,  0x323,  0x345, 0x17f,  0x180e,  0x3000, 0x1100,
                                    0x1161, 0x11a8, 0xac00, 0x958, 0x1e9b, 0x1f600, 0x7fd};
  std::string text;
  for (size_t i = 0; i < num_characters; ++i)
    base::append_utf8(text, random.below(8) == 0 ? static_cast<uint32_t>(random.below(0x110000))
                                                 : kKinds[random.below(std::size(kKinds))]);
  return text;
}

TEST(Tokenizer, DecodesWhatItEncodes) {
  Json json =
      small_tokenizer({{"a", "a"}, {" ", "a"}, {"\xcc", "\x81"}, {"\xc3", "\xa9"}, {"\n", "\n"}});
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"] = {added_token("<a>", 300, true)};
  const Tokenizer tokenizer = tokenizer_of(json);
  EXPECT_TRUE(rc::check("text", [&] {
    base::Random random(*rc::gen::arbitrary<uint64_t>());
    const std::string text = random_text(random, random.below(40));
    std::string storage;
    RC_ASSERT(tokenizer.decode(tokenizer.encode(text)) == nfc(text, storage));
  }));
  EXPECT_TRUE(rc::check("any bytes", [&](const std::vector<uint8_t>& bytes) {
    const std::string text(bytes.begin(), bytes.end()), valid = base::sanitize_utf8(text);
    std::string storage;
    const std::string normal(nfc(valid, storage));
    RC_ASSERT(tokenizer.decode(tokenizer.encode(text)) == normal);
    RC_ASSERT(tokenizer.decode(tokenizer.encode(text, {.parse_specials = true})) == normal);
  }));
}

TEST(Tokenizer, NormalisesOnce) {
  EXPECT_TRUE(rc::check([] {
    base::Random random(*rc::gen::arbitrary<uint64_t>());
    const std::string text = random_text(random, random.below(40));
    std::string first, second;
    const std::string normal(nfc(text, first));
    RC_ASSERT(base::is_valid_utf8(normal));
    RC_ASSERT(nfc(normal, second) == normal);
  }));
}

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

TEST(Tokenizer, TakesAMegabyteWordInUnderASecond) {
  constexpr size_t kBytes = 1 << 20;
  const TestFolder folder;
  std::vector<Tokenizer> tokenizers;
  tokenizers.push_back(tokenizer_of(
      small_tokenizer({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"a", "b"}, {"b", "a"}})));
  if (unpack_qwen(folder)) tokenizers.push_back(Tokenizer::load(folder.path()));
  base::Random random(1);
  std::string letters(kBytes, 'a'), marks, spaces(kBytes, ' ');
  for (char& c : letters) c = static_cast<char>('a' + random.below(26));
  while (marks.size() < kBytes) marks += "\u0301\u0323";
  for (const Tokenizer& tokenizer : tokenizers)
    for (const std::string& text :
         {std::string(kBytes, 'a'), letters, marks, spaces, spaces + "x"}) {
      const double begin = thread_seconds();
      const Ids ids = tokenizer.encode(text);
      const double seconds = thread_seconds() - begin;
      EXPECT_FALSE(ids.empty());
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && defined(NDEBUG)
      EXPECT_LT(seconds, 1.0) << text.substr(0, 4);
#endif
    }
}

TEST(BpeModel, LooksUpAtMostThreePairsAByte) {
  std::array<int32_t, 256> byte_ids;
  for (int b = 0; b < 256; ++b) byte_ids[static_cast<size_t>(b)] = b;
  std::vector<BpeMerge> merges = {
      {'a', 'a', 256}, {'a', 'b', 257}, {'b', 'a', 258}, {256, 257, 259}};
  for (int i = 0; i < 20; ++i) merges.push_back({256 + i * 8, 256 + i * 8, 264 + i * 8});
  const BpeModel model(byte_ids, merges);
  base::Random random(2);
  for (const size_t n : {0u, 1u, 2u, 39u, 40u, 41u, 1000u, 1u << 20})
    for (const uint64_t letters : {1u, 2u}) {
      std::string word(n, 'a');
      for (char& c : word) c = static_cast<char>('a' + random.below(letters));
      std::vector<int32_t> ids;
      EXPECT_LE(model.encode_word(word, ids), 3 * n);
      EXPECT_EQ(ids.empty(), n == 0);
    }
}

// Long words are merged on a heap, short ones by scans: both must choose the same merges.
TEST(BpeModel, MergesLongWordsAsItsDefinitionSays) {
  std::array<int32_t, 256> byte_ids;
  byte_ids.fill(-1);
  for (int b = 'a'; b <= 'd'; ++b) byte_ids[static_cast<size_t>(b)] = b;
  EXPECT_TRUE(rc::check([&](uint64_t seed) {
    base::Random random(seed);
    std::vector<int32_t> known = {'a', 'b', 'c', 'd'};
    std::vector<BpeMerge> merges;
    for (int i = 0; i < 30; ++i) {
      merges.push_back(
          {known[random.below(known.size())], known[random.below(known.size())], 300 + i});
      known.push_back(300 + i);
    }
    std::string word(1 + random.below(120), 'a');
    for (char& c : word)
      c = static_cast<char>('a' + random.below(5));  // 'e' has no id and vanishes
    std::vector<int32_t> expected;
    for (const char c : word)
      if (c != 'e') expected.push_back(c);
    for (bool merged = true; merged;) {
      merged = false;
      size_t best = 0, at = 0;
      for (size_t i = 0; i + 1 < expected.size(); ++i)
        for (size_t rank = 0; rank < merges.size(); ++rank) {
          // of equal pairs the last merge counts
          bool repeated = false;
          for (size_t later = rank + 1; later < merges.size(); ++later)
            repeated |= merges[later].left == merges[rank].left &&
                        merges[later].right == merges[rank].right;
          if (repeated || merges[rank].left != expected[i] || merges[rank].right != expected[i + 1])
            continue;
          if (!merged || rank < best) best = rank, at = i, merged = true;
        }
      if (!merged) break;
      expected[at] = merges[best].result;
      expected.erase(expected.begin() + static_cast<ptrdiff_t>(at) + 1);
    }
    std::vector<int32_t> ids;
    BpeModel(byte_ids, merges).encode_word(word, ids);
    RC_ASSERT(ids == expected);
  }));
}

TEST(Tokenizer, IsUsedByManyThreadsAtOnce) {
  const Tokenizer first = tokenizer_of(small_tokenizer({{"a", "a"}, {" ", "a"}, {"e", "E"}}));
  Json other = small_tokenizer({{"a", "E"}, {"\n", "\n"}, {"1", "."}});
  other["normalizer"] = {{"type", "NFC"}};
  other["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", "\\p{L}+|\\s+|\\p{N}"}}},
         {"behavior", "Isolated"}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  const Tokenizer second = tokenizer_of(other);
  std::vector<std::string> texts;
  base::Random random(3);
  for (int i = 0; i < 300; ++i) texts.push_back(random_text(random, random.below(60)));
  std::vector<Ids> expected;
  for (const std::string& text : texts) {
    expected.push_back(first.encode(text));
    expected.push_back(second.encode(text));
  }
  constexpr size_t kThreads = 6;
  std::vector<size_t> wrong(kThreads, 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (size_t k = 0; k < 3 * texts.size(); ++k) {
        const size_t i = (k * (2 * t + 1)) % texts.size();
        wrong[t] += first.encode(texts[i]) != expected[2 * i];
        wrong[t] += second.encode(texts[i]) != expected[2 * i + 1];
      }
    });
  for (std::thread& thread : threads) thread.join();
  for (const size_t count : wrong) EXPECT_EQ(count, 0u);
}

}  // namespace
}  // namespace erank::text
