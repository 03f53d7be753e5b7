// rank_lines QUERY [MODEL] <passages: prints the lines of standard input, the best answer first.
#include <cstdio>
#include <iostream>
#include <string>

#include "erank/base/error.h"
#include "erank/rank/reranker.h"

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: rank_lines QUERY [MODEL] <passages\n";
    return 2;
  }
  erank::rank::RankRequest request{.query = argv[1]};
  for (std::string line; std::getline(std::cin, line);)
    request.passages.push_back({.id = std::to_string(request.passages.size()), .text = line});
  try {
    const auto reranker = erank::rank::Reranker::load({.model = argc > 2 ? argv[2] : ""});
    const auto passages = request.passages;
    for (const auto& result : reranker->rank(std::move(request)).results)
      std::printf("%.4f\t%s\n", result.score, passages[result.index].text.c_str());
  } catch (const erank::base::Error& error) {
    std::cerr << "rank_lines: " << error.what() << "\n";
    return 2;
  }
}
