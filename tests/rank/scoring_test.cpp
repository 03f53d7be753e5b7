// What a pair's score is made of: the scale, the rule, several reasonings.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "erank/base/error.h"
#include "erank/model/tensor_file.h"
#include "tests/exact_bits.h"
#include "tests/model/golden.h"
#include "tests/rank/tiny_checkpoint.h"
#include "tests/text/yes_no_tokenizer.h"

namespace erank::rank {
namespace {

const std::vector<Passage> kPassages = {{"a", "Light is scattered by the air.", {}},
                                        {"b", "Blue paint is made from lapis lazuli.", {}},
                                        {"c", "", {}}};

// Both modes; what is read is also what the model would write: the word after the opening.
TEST(TinyScoring, ScoresOnTheScaleItIsAskedFor) {
  const std::string model = random_checkpoint("scales");
  text::add_yes_no(model);
  RerankerOptions options = tiny_options(model);
  for (const auto scale : {text::Scale::kYesNo, text::Scale::kZeroToThree}) {
    options.scale = scale;
    const auto reranker = Reranker::load(options);
    for (const Mode mode : {Mode::kDirect, Mode::kThink})
      for (const ScoreKind kind : {ScoreKind::kPaper, ScoreKind::kExpected, ScoreKind::kInteger}) {
        RankRequest request = request_of(kPassages, mode);
        request.options.score = kind;
        for (const auto& r : reranker->rank(request).results) {
          const auto p = r.distribution.answers();
          ASSERT_EQ(p.size(), static_cast<size_t>(text::max_answer(scale)) + 1);
          double sum = 0, weighted = 0;
          for (size_t i = 0; i < p.size(); ++i)
            sum += p[i], weighted += static_cast<double>(i) * p[i];
          const auto most = std::max_element(p.begin(), p.end()) - p.begin();
          EXPECT_EQ(r.integer, most);
          EXPECT_EQ(r.probability, p[static_cast<size_t>(most)]);
          const bool mean = kind == ScoreKind::kExpected ||
                            (kind == ScoreKind::kPaper && scale == text::Scale::kYesNo);
          EXPECT_NEAR(r.score,
                      mean                          ? weighted / sum
                      : kind == ScoreKind::kInteger ? static_cast<double>(most)
                                                    : r.integer * r.probability,
                      1e-12);
        }
      }
  }
}

// tools/make_score_golden.py: prompts, ids and probabilities of a reference on its own.
TEST(TinyScoring, ReadsOnEveryScaleWhatTransformersReads) {
  const base::Json golden = model::read_golden("scores.json");
  const std::string folder = random_checkpoint("score_golden");
  text::add_yes_no(folder);
  model::Parameters parameters(model::ModelConfig::from_json(golden["config"], "scores.json"),
                               at::kFloat);
  model::fill_golden(parameters);
  model::save_tensors(folder + "/model.safetensors", parameters.named(), at::kFloat);
  std::map<std::string, int> cases;
  for (const base::Json& wanted : golden["cases"]) {
    ++cases[wanted["scale"]];
    base::write_file_atomic(folder + "/erank.json",
                            base::dump_json(base::Json{{"layout", wanted["layout"]}}));
    RerankerOptions options = tiny_options(folder);
    options.scale = text::parse_scale(wanted["scale"].get<std::string>(), "scores.json");
    options.instruction = golden["instruction"];
    RankRequest request = request_of({{"d", wanted["document"], {}}}, Mode::kDirect);
    request.query = wanted["query"];
    const auto found = Reranker::load(options)->rank(request).results.at(0);
    const auto what = base::dump_json(wanted);
    const auto p = found.distribution.answers();
    const auto expected = wanted["distribution"].get<std::vector<double>>();
    ASSERT_EQ(p.size(), expected.size()) << what;
    for (size_t k = 0; k < p.size(); ++k)
      EXPECT_NEAR(p[k], expected[k], 1e-5 * expected[k]) << what;
    EXPECT_NEAR(found.score, wanted["expected"].get<double>(), 1e-5) << what;
  }
  EXPECT_EQ(cases, (std::map<std::string, int>{{"0-10", 4}, {"0-3", 4}, {"yes-no", 4}}));
}

TEST(TinyScoring, AveragesTheScoresOfSeveralReasonings) {
  const auto reranker = Reranker::load(tiny_options(random_checkpoint("samples")));
  RankRequest request = request_of(kPassages, Mode::kThink);
  request.options.temperature = 1;
  const auto single = by_id(reranker->rank(request));
  request.options.samples = 4;
  const auto several = by_id(reranker->rank(request));
  ASSERT_EQ(several.size(), kPassages.size());
  int changed = 0;
  for (const auto& [id, result] : several) {
    EXPECT_GE(result.score, 0);
    EXPECT_LE(result.score, 10);
    EXPECT_GT(result.new_tokens, single.at(id).new_tokens);
    changed += result.score != single.at(id).score;
  }
  EXPECT_GT(changed, 0);
  for (const auto& passage : kPassages) {  // the same again, alone
    RankRequest alone = request_of({passage}, Mode::kThink);
    alone.options.temperature = 1;
    alone.options.samples = 4;
    const PassageResult result = reranker->rank(alone).results.at(0);
    EXPECT_NEAR(result.score, several.at(passage.id).score, kExactBits ? 0 : 1e-4);
    EXPECT_EQ(result.reasoning, several.at(passage.id).reasoning);
    EXPECT_EQ(result.new_tokens, several.at(passage.id).new_tokens);
  }
  request.options.temperature = 0;
  EXPECT_THROW(reranker->rank(request), base::Error);
  request.options.temperature = 1;
  request.options.mode = Mode::kDirect;
  EXPECT_THROW(reranker->rank(request), base::Error);
}

}  // namespace
}  // namespace erank::rank
