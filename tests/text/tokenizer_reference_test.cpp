// Differential tests: our ids and pieces against Hugging Face's tokenizers, run as a program of the
// test-time Python.
#include <gtest/gtest.h>

#include <fstream>

#include "erank/base/error.h"
#include "erank/text/split_steps.h"
#include "erank/text/tokenizer.h"
#include "tests/text/tokenizer_support.h"

namespace erank::text {
namespace {

std::string shown(const base::Json& value) { return base::dump_json(value); }

constexpr const char* kNoPython = "needs the test-time Python with tokenizers and gguf";

// Runs the oracle and returns its lines; empty when it fails.
std::vector<std::string> oracle_lines(const std::string& mode, const std::string& source, int count,
                                      int seed) {
  const TestFolder scratch;
  const std::string out = scratch.path("out.jsonl");
  const std::string script = std::string(ERANK_SOURCE_DIR) + "/tests/text/tokenizer_reference.py";
  const std::string command = base::str("'", erank::testing::test_python(), "' '", script, "' ",
                                        mode, " '", source, "' '", out, "' ", count, " ", seed);
  std::vector<std::string> lines;
  if (std::system(command.c_str()) != 0) return lines;
  std::ifstream in(out);
  for (std::string line; std::getline(in, line);) lines.push_back(std::move(line));
  return lines;
}

void expect_equal_ids(const Tokenizer& tokenizer, const std::vector<std::string>& lines) {
  int wrong = 0;
  for (const std::string& line : lines) {
    const base::Json expected = base::parse_json(line, "oracle");
    const auto text = expected["text"].get<std::string>();
    const bool equal =
        tokenizer.encode(text) == expected["ids"].get<Ids>() &&
        tokenizer.encode(text, {.parse_specials = true}) == expected["special_ids"].get<Ids>();
    if (equal) continue;
    if (++wrong <= 5)
      ADD_FAILURE() << shown(text) << "\nours " << shown(tokenizer.encode(text))
                    << "\nwith specials " << shown(tokenizer.encode(text, {.parse_specials = true}))
                    << "\nexpected " << line;
  }
  EXPECT_EQ(wrong, 0) << "of " << lines.size();
}

TEST(TokenizerReference, GivesTheIdsOfTheReferenceWithQwensVocabulary) {
  if (erank::testing::test_python().empty()) GTEST_SKIP() << kNoPython;
  const TestFolder folder;
  if (!unpack_qwen(folder)) GTEST_SKIP() << kNoQwen;
  const auto lines = oracle_lines("folder", folder.path(), 20000, 1);
  ASSERT_EQ(lines.size(), 20000u);
  expect_equal_ids(Tokenizer::load(folder.path()), lines);
}

TEST(TokenizerReference, GivesTheIdsOfTheReferenceWithSmolLm2sVocabulary) {
  if (erank::testing::test_python().empty()) GTEST_SKIP() << kNoPython;
  const std::string model = base::cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!base::file_exists(model)) GTEST_SKIP() << "needs " << model << " (set-up fetches it)";
  const auto lines = oracle_lines("gguf", model, 20000, 2);
  ASSERT_EQ(lines.size(), 20000u);
  expect_equal_ids(Tokenizer::load(model), lines);
}

base::Json added_token(const std::string& content, int id, bool special, bool normalized,
                       const std::string& flag = "") {
  base::Json token = {
      {"id", id},        {"content", content}, {"special", special},  {"normalized", normalized},
      {"lstrip", false}, {"rstrip", false},    {"single_word", false}};
  if (!flag.empty()) token[flag] = true;
  return token;
}

TEST(TokenizerReference, CutsAddedTokensOutAsTheReferenceDoes) {
  if (erank::testing::test_python().empty()) GTEST_SKIP() << kNoPython;
  base::Json tokenizer =
      small_tokenizer({{"a", "a"}, {" ", " "}, {"d", "o"}, {"do", "n"}, {"\xc3", "\xa9"}});
  tokenizer["model"]["vocab"][spell_bytes(" 123")] = 261;
  tokenizer["normalizer"] = {{"type", "NFC"}};
  tokenizer["added_tokens"] = {added_token("<l>", 262, true, false, "lstrip"),
                               added_token("<r>", 263, true, false, "rstrip"),
                               added_token("word", 264, false, false, "single_word"),
                               added_token("é-", 265, false, true),
                               added_token("e\u0301_", 266, false, true, "lstrip"),
                               added_token("<r>a", 267, true, false),
                               added_token(" x ", 268, false, true, "rstrip")};
  std::vector<base::Json> variants(5, tokenizer);
  variants[1]["pre_tokenizer"]["add_prefix_space"] = true;
  variants[2]["model"]["ignore_merges"] = true;
  const auto sequence = [](const base::Json& first) -> base::Json {
    return {{"type", "Sequence"},
            {"pretokenizers",
             {first,
              {{"type", "ByteLevel"},
               {"add_prefix_space", false},
               {"trim_offsets", true},
               {"use_regex", false}}}}};
  };
  variants[3]["pre_tokenizer"] = sequence({{"type", "Split"},
                                           {"pattern", {{"String", "n'"}}},
                                           {"behavior", "Removed"},
                                           {"invert", false}});
  variants[4]["pre_tokenizer"] = sequence({{"type", "Split"},
                                           {"pattern", {{"Regex", "\\p{L}+|\\s"}}},
                                           {"behavior", "Removed"},
                                           {"invert", true}});
  variants.push_back(tokenizer);
  variants[5]["pre_tokenizer"] = sequence({{"type", "Digits"}, {"individual_digits", false}});
  for (size_t i = 0; i < variants.size(); ++i) {
    SCOPED_TRACE(i);
    const TestFolder scratch;
    scratch.write("tokenizer.json", base::dump_json(variants[i]));
    const Tokenizer ours = Tokenizer::load(scratch.path());
    const auto lines = oracle_lines("json", scratch.path("tokenizer.json"), 1000, 4);
    ASSERT_EQ(lines.size(), 1000u);
    int wrong = 0;
    for (const std::string& line : lines) {
      const base::Json expected = base::parse_json(line, "oracle");
      const Ids ids = ours.encode(expected["text"].get<std::string>(), {.parse_specials = true});
      if (ids != expected["special_ids"].get<Ids>() && ++wrong <= 3)
        ADD_FAILURE() << line << "\nours " << shown(ids);
    }
    EXPECT_EQ(wrong, 0);
  }
}

// The patterns of other models, and ours once more in a spelling that only the regex engine knows.
TEST(TokenizerReference, SplitsByAnyPatternAsOnigurumaDoes) {
  if (erank::testing::test_python().empty()) GTEST_SKIP() << kNoPython;
  const std::vector<std::string> patterns = {
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
      R"((?:(?i:'s|'t|'re|'ve|'m|'ll|'d))|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
      R"(\w+|[^\w\s]+)",
      R"(\W+|\d)",
      R"([^\S\r\n]+|\S+$|^\d)",
      R"(\p{Han}+|\P{L}\p{^N}|[一-龥\u3040-ゟ゠-ヿ]+|\x{1F600})",
  };
  const TestFolder scratch;
  scratch.write("patterns.json", shown(patterns));
  constexpr int kCount = 2000;
  const auto lines = oracle_lines("split", scratch.path("patterns.json"), kCount, 3);
  ASSERT_EQ(lines.size(), patterns.size() * kCount);
  std::vector<SplitSteps> splitters;
  for (const std::string& pattern : patterns)
    splitters.emplace_back(std::vector<SplitStep>{split_step_for(pattern, "test")});
  std::vector<int> wrong(patterns.size(), 0);
  for (const std::string& line : lines) {
    const base::Json expected = base::parse_json(line, "oracle");
    const auto text = expected["text"].get<std::string>();
    const auto index = expected["pattern"].get<size_t>();
    std::vector<std::string> pieces;
    splitters[index].for_each(text, [&](std::string_view piece) { pieces.emplace_back(piece); });
    if (pieces != expected["pieces"].get<std::vector<std::string>>() && ++wrong[index] <= 2)
      ADD_FAILURE() << patterns[index] << "\nours " << shown(pieces) << "\nexpected " << line;
  }
  for (size_t i = 0; i < patterns.size(); ++i) EXPECT_EQ(wrong[i], 0) << patterns[i];
}

}  // namespace
}  // namespace erank::text
