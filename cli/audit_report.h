// What an audit finds out, and how it is told.
#pragma once

#include <cstddef>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "engine/audit.h"

namespace damoyolo::cli {

// How the boxes of one detector are found again by another.
struct BoxChange {
  std::size_t exact = 0, rounded = 0, matched = 0;
  double mean_difference = 0, largest_difference = 0;  // of the scores of those matched
};

// How near a network with some layers in fp32 comes.
struct Nearness {
  HeadError head;
  std::optional<double> ap;
};

// How near to fp32 is near enough.
struct Target {
  std::optional<double> least_snr, largest_loss;  // of the head's outputs in dB; of AP

  bool met_by(const Nearness& nearness, std::optional<double> exact_ap) const;
};

// All that an audit finds out.
struct AuditReport {
  std::string device, precision;
  std::size_t images = 0, layer_images = 0;
  Target target;
  std::optional<double> exact_ap;
  std::vector<LayerError> layers;
  BoxChange boxes;
  Nearness before, after;         // without and with the list
  bool enough = false;            // before
  std::vector<std::string> keep;  // the list

  double share_of_work() const;  // of `keep`, in convolutions' FLOPs
};

// For people.
void print(std::ostream& out, const AuditReport& report);

// Every figure. Throws Error when the file cannot be written.
void write_json(const std::string& path, const AuditReport& report);

}  // namespace damoyolo::cli
