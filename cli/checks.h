// Checks of numbers on the command line whose messages stay short: those of CLI11 for the same
// print the largest double with all its 309 digits.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace erank::cli {

inline CLI::Validator number_that(bool (*is_good)(double), const std::string& what,
                                  const std::string& name) {
  return {[is_good, what](std::string& text) {
            double value = 0;
            const bool good = CLI::detail::lexical_cast(text, value) && is_good(value);
            return good ? std::string() : "'" + text + "' is not " + what;
          },
          name};
}

inline CLI::Validator positive_number() {
  return number_that([](double x) { return x > 0; }, "a number above 0", "POSITIVE");
}

inline CLI::Validator non_negative_number() {
  return number_that([](double x) { return x >= 0; }, "a number of 0 or more", "NONNEGATIVE");
}

}  // namespace erank::cli
