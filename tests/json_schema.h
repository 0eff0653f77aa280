// Checks JSON against the part of JSON Schema that bench/report.schema.json uses.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace damoyolo::test {

// What is wrong with `value`, one line each, with the place: "/entries/0/batch: is string". Throws for a keyword that
// is not known here, so that no rule is passed over.
inline std::vector<std::string> schema_errors(const nlohmann::json& value, const nlohmann::json& schema,
                                              const std::string& place = "") {
  using nlohmann::json;
  std::vector<std::string> errors;
  const auto report = [&](const std::string& what) { errors.push_back(fmt::format("{}: {}", place, what)); };
  const auto descend = [&](const json& part, const json& rules, const std::string& name) {
    const auto found = schema_errors(part, rules, place + "/" + name);
    errors.insert(errors.end(), found.begin(), found.end());
  };
  const auto is = [&](const std::string& type) {
    return type == value.type_name() || (type == "integer" && value.is_number_integer());
  };
  for (const auto& [keyword, rule] : schema.items()) {
    if (keyword == "type") {
      const std::vector<std::string> types =
          rule.is_array() ? rule.get<std::vector<std::string>>() : std::vector{rule.get<std::string>()};
      if (std::ranges::none_of(types, is)) report(fmt::format("is {}", value.type_name()));
    } else if (keyword == "enum") {
      if (std::ranges::find(rule, value) == rule.end()) report(value.dump() + " is not one of those allowed");
    } else if (keyword == "minimum") {
      if (value.is_number() && value < rule) report(value.dump() + " is too small");
    } else if (keyword == "required") {
      for (const std::string name : rule)
        if (value.is_object() && !value.contains(name)) report("has no " + name);
    } else if (keyword == "properties") {
      for (const auto& [name, rules] : rule.items())
        if (value.is_object() && value.contains(name)) descend(value[name], rules, name);
    } else if (keyword == "additionalProperties") {
      if (rule != false) throw std::invalid_argument("additionalProperties other than false");
      if (value.is_object())
        for (const auto& member : value.items())
          if (!schema.at("properties").contains(member.key())) report("has an unknown " + member.key());
    } else if (keyword == "items") {
      if (value.is_array())
        for (std::size_t i = 0; i < value.size(); ++i) descend(value[i], rule, std::to_string(i));
    } else if (keyword != "description" && keyword != "title" && keyword != "$schema") {
      throw std::invalid_argument("unknown keyword " + keyword);
    }
  }
  return errors;
}

}  // namespace damoyolo::test
