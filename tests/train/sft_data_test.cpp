#include "erank/train/sft_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/error.h"
#include "tests/rank/tiny_checkpoint.h"
#include "tests/test_folder.h"

namespace erank::train {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TrainingData : public ::testing::Test {
 protected:
  SftData read(const std::vector<base::Json>& changes, const SftDataOptions& options = {}) {
    std::string lines;
    for (const auto& change : changes) {
      base::Json pair = {{"qid", "q"},
                         {"docid", base::str("d", lines.size())},
                         {"query", "a"},
                         {"text", "b"},
                         {"score", 7}};
      if (!change.is_null()) pair.update(change);
      lines += pair.dump() + "\n\n";
    }
    RunOptions run;
    run.model = model_, run.dry_run = true, run.max_query_tokens = limit_;
    run.max_document_tokens = limit_;
    return read_sft_data(
        folder_.write("pairs.jsonl", lines),
        train::Run(run, {.warn = [&](const std::string& line) { warnings_.push_back(line); }}),
        options);
  }
  std::string fault(const std::vector<base::Json>& changes, const SftDataOptions& options = {}) {
    try {
      read(changes, options);
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
      return e.what();
    }
    return "";
  }
  static base::Json thought(const std::string& text) { return {{"thought", text}}; }

  TestFolder folder_;
  std::string model_ = rank::random_checkpoint("sft_data");
  int limit_ = 4000;  // the model reads 2048
  std::vector<std::string> warnings_;
};

TEST_F(TrainingData, AReasoningWithTagsOrChatMarkersIsRefusedWithFileAndLine) {
  for (const char* marker :
       {"<think>", "</think>", "<answer>", "</answer>", "<|im_start|>", "<|im_end|>"}) {
    const auto bad = thought(base::str("One. ", marker, " Two."));
    EXPECT_THAT(fault({thought("Good."), bad}),
                AllOf(HasSubstr("pairs.jsonl:3: the reasoning holds '"), HasSubstr(marker)));
    EXPECT_EQ(fault({bad}, {.modes = Modes::kDirect}), "") << "its reasoning is not learned";
  }
  EXPECT_THAT(fault({thought("No.</think><answer>0</answer>")}),
              HasSubstr("another answer than 7"));
  EXPECT_EQ(read({{}, thought("3 < 4 > 2 <b>think</b>"), thought("")}).examples.size(), 3u);
  EXPECT_THAT(warnings_, IsEmpty());
}

TEST_F(TrainingData, CleanTakesMarkersOutAndCounts) {
  const SftData clean =
      read({thought("One."), thought("On</think>e.<|im_end|>"), thought("O<th<think>ink>ne."), {}},
           {.clean = true});
  ASSERT_EQ(clean.examples.size(), 4u);
  EXPECT_EQ(clean.num_cleaned, 2);
  EXPECT_EQ(clean.num_dropped, 0);
  for (const int i : {1, 2})
    EXPECT_EQ(clean.examples[i].branches[1].ids, clean.examples[0].branches[1].ids);
  EXPECT_THAT(warnings_,
              ElementsAre(HasSubstr("markers out of the reasoning of 2 pairs and dropped 0 of 4")));
}

TEST_F(TrainingData, WhatDoesNotComeBackWithoutMarkersIsRefusedOrDropped) {
  base::write_file_atomic(model_ + "/erank.json", R"({"think_close": "</think> "})");
  EXPECT_THAT(fault({{}, thought("One.")}),
              HasSubstr("pairs.jsonl:3: the reasoning does not lead to its answer 7"));
  const SftData dropped = read({{}, thought("One."), {}}, {.clean = true});
  EXPECT_EQ(dropped.examples.size(), 2u);
  EXPECT_EQ(dropped.num_dropped, 1);
  EXPECT_THAT(warnings_, ElementsAre(HasSubstr("of 0 pairs and dropped 1 of 3")));
  EXPECT_THAT(fault({thought("One.")}, {.clean = true}), HasSubstr("every pair was dropped"));
}

TEST_F(TrainingData, APairThatIsTooLongNamesItsLineAndItsLongestPart) {
  const std::string long_text(3000, 'x'), half(1000, 'x');
  EXPECT_THAT(fault({{}, {{"query", long_text}}}),
              AllOf(HasSubstr("pairs.jsonl:3: the pair has "),
                    HasSubstr("(query 3000, document 1, reasoning 0)"),
                    HasSubstr("at most 2048; its query is the longest part"),
                    HasSubstr("--max-query-tokens")));
  EXPECT_THAT(fault({{{"text", long_text}}}),
              AllOf(HasSubstr("pairs.jsonl:1: "), HasSubstr("its document is the longest part"),
                    HasSubstr("--max-doc-tokens")));
  EXPECT_THAT(fault({{{"text", half}, {"thought", long_text}}}),
              AllOf(HasSubstr("(query 1, document 1000, reasoning 3000)"),
                    HasSubstr("its reasoning is the longest part")));
  limit_ = 100;
  EXPECT_EQ(read({{{"text", long_text}, {"query", long_text}}}).examples.size(), 1u);
  // The two branches of a pair are read one without the other.
  limit_ = 4000;
  const SftData long_one = read({{{"thought", std::string(1400, 'x')}}});
  EXPECT_LT(long_one.examples[0].length(), 2048);
  EXPECT_GT(long_one.longest, long_one.examples[0].length());
}

TEST(RunOptionsCheck, WhatIsNegativeNotFiniteOrAbsurdIsRefusedByName) {
  const auto fault = [](const std::function<void(RunOptions&)>& change) -> std::string {
    RunOptions options;
    options.dry_run = true;
    options.model = rank::random_checkpoint("run_options");
    change(options);
    try {
      const train::Run run(options, {});
    } catch (const base::Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(fault([](RunOptions&) {}), "");
  const double nan = std::nan(""), infinite = std::numeric_limits<double>::infinity();
  for (const double bad : {-1.0, nan, infinite, 1e38}) {
    const auto expect = [&](const char* name, const std::function<void(RunOptions&)>& change) {
      EXPECT_THAT(fault(change), AllOf(HasSubstr(base::str("[", name, "] is ", bad)),
                                       HasSubstr("expected a number from 0 to ")));
    };
    expect("--learning-rate", [&](RunOptions& o) { o.train.schedule.peak = bad; });
    expect("--warmup-ratio", [&](RunOptions& o) { o.train.schedule.warmup_ratio = bad; });
    expect("--floor-ratio", [&](RunOptions& o) { o.train.schedule.floor_ratio = bad; });
    expect("--adam-beta1", [&](RunOptions& o) { o.train.adamw.beta1 = bad; });
    expect("--adam-beta2", [&](RunOptions& o) { o.train.adamw.beta2 = bad; });
    expect("--weight-decay", [&](RunOptions& o) { o.train.adamw.weight_decay = bad; });
    expect("--clip-norm", [&](RunOptions& o) { o.train.adamw.clip_norm = bad; });
    expect("--lora-alpha", [&](RunOptions& o) { o.train.lora->alpha = bad; });
    expect("--lora-dropout", [&](RunOptions& o) { o.train.lora->dropout = bad; });
  }
  EXPECT_THAT(fault([](RunOptions& o) { o.train.checkpoint_steps = -1; }),
              HasSubstr("--checkpoint-steps"));
  EXPECT_THAT(fault([](RunOptions& o) { o.train.validate_steps = -1; }),
              HasSubstr("--validate-steps"));
}

}  // namespace
}  // namespace erank::train
