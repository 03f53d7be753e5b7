// The verbs under `erank data`.
#pragma once

#include "cli/verbs.h"
#include "erank/data/check.h"

namespace erank::cli {

void add_data_check(CLI::App& data, Context& context);
void add_data_sample(CLI::App& data, Context& context);
void add_data_convert(CLI::App& data, Context& context);

// The files of a collection as flags name them: each by itself, or those of a BEIR folder that are
// not given.
struct CollectionFlags {
  std::string beir, corpus, queries, qrels, run, split;
  void add_to(CLI::App& verb);
  // Of a folder the judgements of `split`; when that is "" those of every split.
  data::CollectionFiles files() const;
  std::vector<std::string> inputs() const;  // what is read, for Output
};

}  // namespace erank::cli
