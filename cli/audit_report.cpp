#include "cli/audit_report.h"

#include <fmt/ostream.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/json_file.h"
#include "cli/text.h"

namespace damoyolo::cli {
namespace {

std::string decibels(double error) {
  return error > 0 ? fmt::format("{:.1f} dB", signal_to_noise(error)) : std::string("exact");
}

std::string text_of(const Nearness& nearness, std::optional<double> exact_ap) {
  std::string text =
      fmt::format("the head's outputs: class logits {}, boxes {}, together {}", decibels(nearness.head.cls),
                  decibels(nearness.head.reg), decibels(nearness.head.all()));
  if (exact_ap) text += fmt::format("\nAP {:.4f}, in fp32 {:.4f}", *nearness.ap, *exact_ap);
  return text;
}

std::string text_of(const Target& target) {
  std::vector<std::string> parts;
  if (target.least_snr) parts.push_back(fmt::format("at least {:g} dB at the head's outputs", *target.least_snr));
  if (target.largest_loss) parts.push_back(fmt::format("at most {:g} of AP lost", *target.largest_loss));
  return fmt::format("{}", fmt::join(parts, " and "));
}

void print_layers(std::ostream& out, const std::vector<LayerError>& layers, bool with_effects) {
  std::size_t width = 0;
  for (const LayerError& layer : layers) width = std::max(width, layer.name.size());
  fmt::print(out, "{:<{}} {:>9} {:>9} {:>12} {:>8}{}\n", "layer", width, "MFLOP", "alone", "accumulated", "SNR",
             with_effects ? fmt::format(" {:>9}", "effect") : "");
  for (const LayerError& layer : layers)
    fmt::print(out, "{:<{}} {:>9.1f} {:>9} {:>12.5f} {:>8}{}\n", layer.name, width,
               static_cast<double>(layer.flops) / 1e6, layer.kept ? "fp32" : fmt::format("{:.5f}", layer.local),
               layer.accumulated, decibels(layer.accumulated),
               with_effects ? fmt::format(" {:>9.6f}", layer.effect) : "");
}

nlohmann::ordered_json to_json(const Nearness& nearness) {
  nlohmann::ordered_json json{{"cls_error", nearness.head.cls}, {"reg_error", nearness.head.reg}};
  if (nearness.ap) json["ap"] = *nearness.ap;
  return json;
}

}  // namespace

bool Target::met_by(const Nearness& nearness, std::optional<double> exact_ap) const {
  return (!least_snr || signal_to_noise(nearness.head.all()) >= *least_snr) &&
         (!largest_loss || *exact_ap - *nearness.ap <= *largest_loss);
}

double AuditReport::share_of_work() const {
  double all = 0, some = 0;
  for (const LayerError& layer : layers) {
    all += static_cast<double>(layer.flops);
    if (std::ranges::find(keep, layer.name) != keep.end()) some += static_cast<double>(layer.flops);
  }
  return some / all;
}

void print(std::ostream& out, const AuditReport& report) {
  fmt::print(out, "{}, layers compared on {} of them\n\n", counted(report.images, "image"), report.layer_images);
  print_layers(out, report.layers, !report.enough);
  fmt::print(out, "\n{} beside fp32\n{}\n", report.precision, text_of(report.before, report.exact_ap));
  fmt::print(out, "{} of {} boxes found again, {} others; scores differ by {:.5f} on average, by {:.5f} at most\n\n",
             report.boxes.matched, report.boxes.exact, report.boxes.rounded - report.boxes.matched,
             report.boxes.mean_difference, report.boxes.largest_difference);
  const std::string target = text_of(report.target);
  if (report.enough)
    fmt::print(out, "Nothing needs to be kept in fp32 for {}.\n", target);
  else
    fmt::print(out, "For {}, keep {} in fp32, {:.1f} % of the work:\n--keep-fp32 {}\n\nwith that\n{}\n", target,
               counted(report.keep.size(), "layer"), 100 * report.share_of_work(), fmt::join(report.keep, ","),
               text_of(report.after, report.exact_ap));
}

void write_json(const std::string& path, const AuditReport& report) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (const LayerError& layer : report.layers) {
    layers.push_back({{"name", layer.name},
                      {"flops", layer.flops},
                      {"kept", layer.kept},
                      {"alone", layer.local},
                      {"accumulated", layer.accumulated}});
    if (!report.enough) layers.back()["effect"] = layer.effect;
  }
  nlohmann::ordered_json json{{"device", report.device},
                              {"precision", report.precision},
                              {"images", report.images},
                              {"layer_images", report.layer_images},
                              {"target", text_of(report.target)},
                              {"before", to_json(report.before)},
                              {"keep_fp32", report.keep},
                              {"share_of_work", report.share_of_work()},
                              {"after", to_json(report.after)},
                              {"boxes",
                               {{"fp32", report.boxes.exact},
                                {"rounded", report.boxes.rounded},
                                {"matched", report.boxes.matched},
                                {"mean_score_difference", report.boxes.mean_difference},
                                {"largest_score_difference", report.boxes.largest_difference}}},
                              {"layers", layers}};
  if (report.exact_ap) json["ap_fp32"] = *report.exact_ap;
  write_json_file(path, json);
}

}  // namespace damoyolo::cli
