// One test case for each of some values, so that a fault on a GPU costs one of them and not all behind it.
#pragma once

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

// A case for each value of a container, with the name that an expression gives it:
//
//   TEST_CASE_FOR_EACH(const Tile& tile, all_tiles(), "tile " + tile.name + " adds up") { CHECK(adds_up(tile)); }
//
// Both expressions are evaluated before main(), from nothing but constants, other files' functions that are ready
// then, and what was declared above. A declaration has no comma.
#define TEST_CASE_FOR_EACH(declaration, values, name) \
  TEST_CASE_FOR_EACH_AS(DOCTEST_ANONYMOUS(case_for_each_), declaration, values, name)
#define TEST_CASE_FOR_EACH_AS(function, declaration, values, name)                                \
  static void function(declaration);                                                              \
  DOCTEST_GLOBAL_NO_WARNINGS(                                                                     \
      DOCTEST_ANONYMOUS(case_for_each_registered_),                                               \
      damoyolo::test::add_cases(                                                                  \
          __FILE__, __LINE__, values, [](declaration) -> std::string { return name; }, function)) \
  static void function(declaration)

namespace damoyolo::test {

// What the added cases run, by their doctest id, which also is their order in a line.
inline std::vector<std::function<void()>>& added_cases() {
  static std::vector<std::function<void()>> cases;
  return cases;
}

inline void run_added_case() {
  added_cases()[static_cast<std::size_t>(doctest::getContextOptions()->currentTest->m_template_id)]();
}

template <typename Values, typename Name, typename Run>
int add_cases(const char* file, unsigned line, const Values& values, Name name, Run run) {
  for (const auto& value : values) {
    const auto id = static_cast<int>(added_cases().size());
    doctest::detail::TestCase added(run_added_case, file, line, doctest_detail_test_suite_ns::getCurrentTestSuite(),
                                    "", id);
    added.m_full_name = name(value).c_str();  // what doctest shows of a case with an id
    added.m_name = added.m_full_name.c_str();
    doctest::detail::regTest(added);
    added_cases().push_back([run, value] { run(value); });
  }
  return 0;
}

}  // namespace damoyolo::test
