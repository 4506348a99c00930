#include "preprocess.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "failure.h"

namespace {

// Pillow refuses to make an image of more pixels.
constexpr double kMostPixels = 2.0 * 89478485;

struct Size {
  double height;
  double width;
};

// Half to even, as Python's round: the default rounding mode of IEEE 754.
double rounded(double value) { return std::nearbyint(value); }

// What the image is resized to, before it is cropped.
Size resized(const Image& image, const Preprocessing& how) {
  const double height = image.height;
  const double width = image.width;
  const Size target{std::floor(how.height / how.crop_pct), std::floor(how.width / how.crop_pct)};
  if (how.crop_mode == CropMode::squash) return target;
  if (how.crop_mode == CropMode::center && target.height == target.width) {
    // The shorter side becomes the target, the longer one is cut to a whole number.
    const double longer = std::floor(target.height * std::max(height, width) / std::min(height, width));
    return height <= width ? Size{target.height, longer} : Size{longer, target.height};
  }
  // Both sides by one ratio: the image covers the target in mode center, and lies within it in mode border.
  const double by_height = height / target.height;
  const double by_width = width / target.width;
  const double ratio =
      how.crop_mode == CropMode::border ? std::max(by_height, by_width) : std::min(by_height, by_width);
  return {rounded(height / ratio), rounded(width / ratio)};
}

// The middle of an image; where it is too small, it lies in the middle of `fill`, the odd pixel at its end.
Image cropped_or_padded(const Image& image, int height, int width, const std::array<std::uint8_t, 3>& fill) {
  const int canvas_height = std::max(image.height, height);
  const int canvas_width = std::max(image.width, width);
  int left = 0;
  int top = 0;
  if (image.height < height || image.width < width) {
    left = (canvas_width - image.width) / 2;
    top = (canvas_height - image.height) / 2;
  }
  const int from_left = static_cast<int>(rounded((canvas_width - width) / 2.0)) - left;
  const int from_top = static_cast<int>(rounded((canvas_height - height) / 2.0)) - top;
  Image result{width, height, {}};
  result.pixels.reserve(static_cast<std::size_t>(width) * height * 3);
  for (int y = from_top; y < from_top + height; ++y) {
    for (int x = from_left; x < from_left + width; ++x) {
      const bool inside = y >= 0 && y < image.height && x >= 0 && x < image.width;
      const std::uint8_t* from =
          inside ? image.pixels.data() + (static_cast<std::size_t>(y) * image.width + x) * 3 : fill.data();
      result.pixels.insert(result.pixels.end(), from, from + 3);
    }
  }
  return result;
}

}  // namespace

std::vector<std::uint8_t> preprocess(const Image& image, const Preprocessing& how) {
  std::array<std::uint8_t, 3> fill{0, 0, 0};
  if (how.crop_mode == CropMode::border) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      fill[channel] = static_cast<std::uint8_t>(rounded(255 * how.mean[channel]));
    }
  }
  const Size size = resized(image, how);
  if (size.height < 1 || size.width < 1 || size.height * size.width > kMostPixels) {
    throw Failure(ExitCode::data,
                  "An image of " + std::to_string(image.width) + "x" + std::to_string(image.height) +
                      " pixels cannot become " + std::to_string(how.width) + "x" + std::to_string(how.height) +
                      ": a side shrinks to nothing, or grows beyond all bounds.",
                  "Leave the image out.");
  }
  const Image pixels = cropped_or_padded(
      resize(image, static_cast<int>(size.width), static_cast<int>(size.height), how.filter, how.pillow_major),
      how.height, how.width, fill);

  const std::size_t places = static_cast<std::size_t>(how.height) * how.width;
  const auto target = [&](std::size_t place, std::size_t channel) {
    return how.channels_last ? place * 3 + channel : channel * places + place;
  };
  if (how.uint8) {
    std::vector<std::uint8_t> input(places * 3);
    for (std::size_t place = 0; place < places; ++place) {
      for (std::size_t channel = 0; channel < 3; ++channel) {
        input[target(place, channel)] = pixels.pixels[place * 3 + channel];
      }
    }
    return input;
  }
  // In float32 and by division at every step, as torch does it: another order gives other last bits.
  std::vector<float> values(places * 3);
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const float mean = static_cast<float>(how.mean[channel]);
    const float std = static_cast<float>(how.std[channel]);
    for (std::size_t place = 0; place < places; ++place) {
      const float scaled = static_cast<float>(pixels.pixels[place * 3 + channel]) / 255.0f;
      values[target(place, channel)] = (scaled - mean) / std;
    }
  }
  std::vector<std::uint8_t> input(values.size() * sizeof(float));
  std::memcpy(input.data(), values.data(), input.size());
  return input;
}
