#include "erank/text/split_regex.h"

#include "erank/base/error.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace erank::text {

using base::ErrorKind;
using base::fail;

namespace {

constexpr size_t kJitStackBytes = size_t{64} << 20;

std::string message_of(int code) {
  unsigned char buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// One thread's matching state, for every pattern. Only group 0 is read, so one pair of offsets is
// enough.
struct MatchState {
  MatchState()
      : context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(size_t{32} << 10, kJitStackBytes, nullptr)),
        data(pcre2_match_data_create(1, nullptr)) {
    if (context == nullptr || data == nullptr) throw std::bad_alloc();
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    if (stack != nullptr) pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  pcre2_match_context* context;
  pcre2_jit_stack* stack;
  pcre2_match_data* data;
};

}  // namespace

struct SplitRegex::Code {
  pcre2_code* compiled = nullptr;
  ~Code() { pcre2_code_free(compiled); }
};

SplitRegex::SplitRegex(std::string_view pattern, bool literal, std::string_view where)
    : code_(std::make_unique<Code>()) {
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  const std::string text = literal ? std::string(pattern) : translate_split_pattern(pattern, where);
  uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->compiled = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options,
                                  &error, &offset, context.get());
  if (code_->compiled == nullptr)
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": split pattern '", pattern,
         "': ", message_of(error));
  pcre2_jit_compile(code_->compiled, PCRE2_JIT_COMPLETE);  // without JIT, matching interprets
}

SplitRegex::~SplitRegex() = default;

bool SplitRegex::find(std::string_view text, size_t from, size_t& begin, size_t& end) const {
  thread_local MatchState state;
  const auto run = [&](uint32_t options) {
    return pcre2_match(code_->compiled, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                       from, options | PCRE2_NO_UTF_CHECK, state.data, state.context);
  };
  int result = run(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0)
    fail(ErrorKind::kExhausted, "Tokenizer", "the split pattern gave up on a text of ", text.size(),
         " bytes: ", message_of(result));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(state.data);
  begin = offsets[0];
  end = offsets[1];
  return true;
}

}  // namespace erank::text
