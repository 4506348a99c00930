#include "resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace {

// Weights are whole numbers of 2^-22: 8 bits of pixel and 2 of overshoot leave room within 32 bits.
constexpr int kFractionBits = 22;
constexpr double kPi = 3.14159265358979323846;

struct Kernel {
  double support;  // it is 0 from here on, in input pixels
  double (*weight)(double);
};

double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

double triangle(double x) { return std::max(1 - std::abs(x), 0.0); }

// Pillow has these two constants in single precision.
double hamming(double x) {
  x = std::abs(x);
  if (x == 0) return 1;
  if (x >= 1) return 0;
  x *= kPi;
  return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));
}

// Keys' cubic convolution with a = -1/2.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

double sinc(double x) {
  if (x == 0) return 1;
  x *= kPi;
  return std::sin(x) / x;
}

double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

Kernel kernel_of(Filter filter) {
  switch (filter) {
    case Filter::box: return {0.5, box};
    case Filter::bilinear: return {1, triangle};
    case Filter::hamming: return {1, hamming};
    case Filter::bicubic: return {2, cubic};
    default: return {3, lanczos};
  }
}

// What one output place of an axis takes of the input: weights of the places from `first` on.
struct Taps {
  int first;
  std::vector<std::int32_t> weights;
};

std::vector<Taps> taps_of(int input, int output, const Kernel& kernel) {
  const double scale = static_cast<double>(input) / output;
  const double stretch = std::max(scale, 1.0);  // a reduction reads every pixel that it leaves out
  const double support = kernel.support * stretch;
  std::vector<Taps> taps;
  taps.reserve(static_cast<std::size_t>(output));
  for (int place = 0; place < output; ++place) {
    const double center = (place + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int end = std::min(static_cast<int>(center + support + 0.5), input);
    std::vector<double> weights;
    double sum = 0;
    for (int from = first; from < end; ++from) {
      weights.push_back(kernel.weight((from - center + 0.5) * (1.0 / stretch)));
      sum += weights.back();
    }
    Taps tap{first, {}};
    for (const double weight : weights) {
      const double whole = (sum != 0 ? weight / sum : weight) * (1 << kFractionBits);
      tap.weights.push_back(static_cast<std::int32_t>(whole + (whole < 0 ? -0.5 : 0.5)));
    }
    taps.push_back(std::move(tap));
  }
  return taps;
}

std::uint8_t rounded(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

Image columns_resized(const Image& image, int width, const Kernel& kernel) {
  const std::vector<Taps> taps = taps_of(image.width, width, kernel);
  Image result{width, image.height, {}};
  result.pixels.reserve(static_cast<std::size_t>(width) * image.height * 3);
  for (int y = 0; y < image.height; ++y) {
    const std::uint8_t* row = image.pixels.data() + static_cast<std::size_t>(y) * image.width * 3;
    for (const Taps& tap : taps) {
      for (int channel = 0; channel < 3; ++channel) {
        const std::uint8_t* from = row + static_cast<std::size_t>(tap.first) * 3 + channel;
        std::int32_t sum = 1 << (kFractionBits - 1);
        for (const std::int32_t weight : tap.weights) {
          sum += *from * weight;
          from += 3;
        }
        result.pixels.push_back(rounded(sum));
      }
    }
  }
  return result;
}

Image rows_resized(const Image& image, int height, const Kernel& kernel) {
  const std::size_t line = static_cast<std::size_t>(image.width) * 3;
  Image result{image.width, height, {}};
  result.pixels.reserve(line * static_cast<std::size_t>(height));
  std::vector<std::int32_t> sums(line);
  for (const Taps& tap : taps_of(image.height, height, kernel)) {
    std::fill(sums.begin(), sums.end(), 1 << (kFractionBits - 1));
    const std::uint8_t* from = image.pixels.data() + static_cast<std::size_t>(tap.first) * line;
    for (const std::int32_t weight : tap.weights) {
      for (std::size_t i = 0; i < line; ++i) sums[i] += from[i] * weight;
      from += line;
    }
    for (const std::int32_t sum : sums) result.pixels.push_back(rounded(sum));
  }
  return result;
}

// Places of the input along one axis. The step is added up, as Pillow does: the last bit decides at a border.
std::vector<int> nearest_places(int input, int output) {
  const double step = static_cast<double>(input) / output;
  double at = step * 0.5;
  std::vector<int> places;
  for (int place = 0; place < output; ++place, at += step) {
    places.push_back(std::min(static_cast<int>(at), input - 1));
  }
  return places;
}

Image nearest(const Image& image, int width, int height) {
  const std::vector<int> columns = nearest_places(image.width, width);
  Image result{width, height, {}};
  result.pixels.reserve(static_cast<std::size_t>(width) * height * 3);
  for (const int y : nearest_places(image.height, height)) {
    for (const int x : columns) {
      const std::uint8_t* from = image.pixels.data() + (static_cast<std::size_t>(y) * image.width + x) * 3;
      result.pixels.insert(result.pixels.end(), from, from + 3);
    }
  }
  return result;
}

// Pillow 13 brought this order for images that lose more than twice as many rows as columns
// (https://github.com/python-pillow/Pillow/pull/9549).
bool rows_first(const Image& image, int width, int height, int pillow_major) {
  return pillow_major >= 13 && image.height > height && image.height - height > 2 * (image.width - width);
}

}  // namespace

Image resize(const Image& image, int width, int height, Filter filter, int pillow_major) {
  if (width == image.width && height == image.height) return image;
  if (filter == Filter::nearest) return nearest(image, width, height);
  const Kernel kernel = kernel_of(filter);
  const auto columns = [&](const Image& of) {
    return width == of.width ? of : columns_resized(of, width, kernel);
  };
  const auto rows = [&](const Image& of) { return height == of.height ? of : rows_resized(of, height, kernel); };
  return rows_first(image, width, height, pillow_major) ? columns(rows(image)) : rows(columns(image));
}
