// What `erank synth` says of the labels that it made.
#pragma once

#include <optional>
#include <string>

#include "erank/base/json.h"
#include "erank/data/records.h"
#include "erank/synth/labelling.h"

namespace erank::cli {

struct Prices {
  std::optional<double> in, out;  // of a million tokens
};

// nullopt when neither price is known.
std::optional<double> cost_of(const Prices& prices, int64_t prompt_tokens,
                              int64_t completion_tokens);

struct SynthReport {
  synth::LabelReport labels;
  synth::Judge judge{};
  int64_t max_tokens = 0;
  int64_t sent = 0;  // by this run of the program; the rest counts what earlier ones were told too
  std::optional<double> cost;
  // Where there are judgements: nDCG@10 of the labels' order, and the mean label of each grade.
  struct Quality {
    int64_t queries = 0;
    double label = 0, consensus = 0;
    std::optional<double> first_stage;                     // where every list has its scores
    std::map<int64_t, std::pair<int64_t, double>> grades;  // grade: pairs, mean label
  };
  std::optional<Quality> quality;
};

// nullopt: no labelled query has judgements.
std::optional<SynthReport::Quality> quality_of(const synth::Labelling& labelling,
                                               const data::Qrels& qrels);

std::string to_text(const SynthReport& report);
base::OrderedJson to_json(const SynthReport& report);

}  // namespace erank::cli
