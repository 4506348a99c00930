#include "results.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

std::vector<float> logits_of(const std::vector<float>& outputs, bool probabilities) {
  if (!probabilities) return outputs;
  // What underflowed counts as the smallest normal float; NaN stays NaN, to be reported.
  constexpr double floor = std::numeric_limits<float>::min();
  std::vector<float> logits;
  logits.reserve(outputs.size());
  for (const float value : outputs) {
    logits.push_back(static_cast<float>(std::log(value < floor ? floor : static_cast<double>(value))));
  }
  return logits;
}

std::vector<double> probabilities_of(const std::vector<float>& logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  std::vector<double> values;
  values.reserve(logits.size());
  for (const float logit : logits) values.push_back(std::exp(logit - most));
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  for (double& value : values) value /= sum;
  return values;
}

std::vector<std::size_t> largest(const std::vector<float>& values, std::size_t count) {
  std::vector<std::size_t> indices(values.size());
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  std::stable_sort(indices.begin(), indices.end(),
                   [&](std::size_t left, std::size_t right) { return values[left] > values[right]; });
  indices.resize(std::min(count, indices.size()));
  return indices;
}

double percentile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  const double rank = share * static_cast<double>(values.size() - 1);
  const std::size_t below = static_cast<std::size_t>(rank);
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (rank - static_cast<double>(below)) * (values[above] - values[below]);
}

Comparison compare(const std::vector<float>& reference, const std::vector<float>& candidate, std::size_t classes) {
  Comparison result{true, 0, 0, 0, reference.size() / classes, 0};
  double most = 0;
  double sum = 0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    result.finite = result.finite && std::isfinite(reference[i]) && std::isfinite(candidate[i]);
    const double difference = std::abs(static_cast<double>(reference[i]) - candidate[i]);
    result.scale = std::max(result.scale, std::abs(static_cast<double>(reference[i])));
    most = std::max(most, difference);
    sum += difference;
  }
  // Logits that are all 0 have no scale: then any difference is without bound.
  const auto relative = [&](double value) {
    return value == 0 ? 0.0 : (result.scale > 0 ? value / result.scale : std::numeric_limits<double>::infinity());
  };
  result.max_abs_relative = relative(most);
  result.mean_abs_relative = relative(sum / static_cast<double>(reference.size()));
  for (std::size_t image = 0; image < result.images; ++image) {
    const auto first = [&](const std::vector<float>& logits) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(image * classes);
      return std::max_element(begin, begin + static_cast<std::ptrdiff_t>(classes)) - begin;
    };
    if (first(reference) == first(candidate)) ++result.agree;
  }
  return result;
}
