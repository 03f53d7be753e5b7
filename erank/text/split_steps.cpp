#include "erank/text/split_steps.h"

namespace erank::text {
namespace {

struct KnownPattern {
  std::string_view pattern;
  SplitStep::Kind kind;
};
constexpr KnownPattern kKnownPatterns[] = {
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitStep::Kind::kQwen2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     SplitStep::Kind::kLlama3},
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
     SplitStep::Kind::kGpt2},
};

}  // namespace

SplitStep split_step_for(std::string_view pattern, std::string_view where) {
  for (const KnownPattern& known : kKnownPatterns)
    if (pattern == known.pattern) return {.kind = known.kind};
  return {.kind = SplitStep::Kind::kRegex,
          .regex = std::make_shared<const SplitRegex>(pattern, false, where)};
}

}  // namespace erank::text
