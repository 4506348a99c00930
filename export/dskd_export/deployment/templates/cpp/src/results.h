// Outputs to what a person wants to know of them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

// Logits as they are; of probabilities their logarithms, finite, so that both are compared in one scale.
std::vector<float> logits_of(const std::vector<float>& outputs, bool probabilities);

// Softmax of one image's logits.
std::vector<double> probabilities_of(const std::vector<float>& logits);

// Indices of the largest values, the largest first; of equal ones the first.
std::vector<std::size_t> largest(const std::vector<float>& values, std::size_t count);

// Between the two nearest ranks, as numpy.percentile; share from 0 to 1, values in any order.
double percentile(std::vector<double> values, double share);

struct Comparison {
  bool finite;
  double scale;              // largest absolute reference logit
  double max_abs_relative;   // largest difference / scale
  double mean_abs_relative;  // mean difference / scale
  std::size_t images;
  std::size_t agree;  // images with the same first class
};

// Logits of the same images, one row of `classes` an image.
Comparison compare(const std::vector<float>& reference, const std::vector<float>& candidate, std::size_t classes);
