// Resampling of an image, bit-identical to Pillow:
// https://pillow.readthedocs.io/en/stable/handbook/concepts.html#filters
#pragma once

#include "files.h"

enum class Filter { nearest, box, bilinear, hamming, bicubic, lanczos };

// The whole image as width x height pixels. Pillow 13 and newer begin with the rows of an image that loses many
// of them; each pass rounds to 8 bits, so the order is seen in the result.
Image resize(const Image& image, int width, int height, Filter filter, int pillow_major);
