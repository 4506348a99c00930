// An image as the model's input, step by step as timm's evaluation transform and dskd_export.runtime.preprocess do.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "files.h"
#include "resize.h"

enum class CropMode { center, squash, border };

struct Preprocessing {
  int height;
  int width;
  std::array<double, 3> mean;  // of pixels scaled to [0, 1]
  std::array<double, 3> std;
  Filter filter;
  double crop_pct;  // crop size / resized size
  CropMode crop_mode;
  bool uint8;        // the graph normalises
  bool channels_last;  // [height, width, 3] and not [3, height, width]
  int pillow_major;  // of the Pillow that the model was exported with
};

// Bytes of one input: float32 or uint8, in the layout of the model.
std::vector<std::uint8_t> preprocess(const Image& image, const Preprocessing& how);
