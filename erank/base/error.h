// Errors of the whole project. Bad input or a bad environment is an `Error` whose text says where,
// what, what was expected and what to do; a mistake of ours is an `InternalError`. Outcomes that we
// expect (an unparsable answer, a truncated passage) are values, never exceptions.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace erank::base {

enum class ErrorKind {
  kInvalidInput,  // an argument, a flag, a line or a field is wrong
  kNotFound,      // a file, an id or a model that was named does not exist
  kCorrupt,       // a file is damaged or is not what it claims to be
  kExhausted,     // memory, disk, a budget or a limit is too small
};

// What the caller or the environment did wrong. The program ends with exit code 2. The message is
// one line that is safe to show (printable() of base/utf8.h), whatever of a file it quotes.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message);
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// What we did wrong. The program ends with exit code 1.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// The arguments written one after another, as `<<` writes them.
template <typename... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return std::move(out).str();
}

// Throws Error "[where] args...": fail(ErrorKind::kCorrupt, "load_weights", file, ": ...").
template <typename... Args>
[[noreturn]] void fail(ErrorKind kind, const char* where, const Args&... args) {
  throw Error(kind, str("[", where, "] ", args...));
}

}  // namespace erank::base

// Throws InternalError when our own reasoning is wrong; further arguments are written as by str().
#define ERANK_CHECK(condition, ...)                                                           \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      throw ::erank::base::InternalError(::erank::base::str(__FILE__, ":", __LINE__,          \
                                                            ": check failed: ", #condition,   \
                                                            " " __VA_OPT__(, ) __VA_ARGS__)); \
  } while (false)
