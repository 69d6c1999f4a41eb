// As much of a test framework as is needed here; CTest runs the programs.
#pragma once

#include <functional>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace check {

using Tests = std::vector<std::pair<std::string, std::function<void()>>>;

/// What was declared with TEST.
inline Tests& tests() {
  static Tests tests;
  return tests;
}

inline int failures = 0;

/// Counts and prints what does not hold.
inline void that(bool holds, const char* words, const char* file, int line) {
  if (holds) return;
  ++failures;
  std::cerr << file << ':' << line << ": " << words << '\n';
}

/// The error of this class that `call` throws.
template <class Error>
Error thrown(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  throw std::logic_error("nothing was thrown where an error was expected");
}

/// Runs all tests; the exit status.
inline int run() {
  for (const auto& [name, test] : tests()) {
    const int before = failures;
    try {
      test();
    } catch (const std::exception& error) {
      that(false, error.what(), name.c_str(), 0);
    }
    std::cout << (failures == before ? "ok   " : "FAIL ") << name << std::endl;
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition) check::that(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define TEST(name)                                                                      \
  static void name();                                                                   \
  static const bool name##_is_there = (check::tests().emplace_back(#name, name), true); \
  static void name()
