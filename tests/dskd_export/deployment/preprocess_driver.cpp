// The generated program's preprocessing as a function that Python can call; the way is chosen at run time.
#include <algorithm>

#include "failure.h"
#include "preprocess.h"

extern "C" long preprocess_image(const unsigned char* pixels, int width, int height, int target_width,
                                 int target_height, const double* mean, const double* std, int filter, double crop_pct,
                                 int crop_mode, int uint8, int channels_last, int pillow_major, unsigned char* out) {
  const Image image{width, height,
                    std::vector<std::uint8_t>(pixels, pixels + static_cast<std::size_t>(width) * height * 3)};
  const Preprocessing how{target_height,
                          target_width,
                          {{mean[0], mean[1], mean[2]}},
                          {{std[0], std[1], std[2]}},
                          static_cast<Filter>(filter),
                          crop_pct,
                          static_cast<CropMode>(crop_mode),
                          uint8 != 0,
                          channels_last != 0,
                          pillow_major};
  try {
    const std::vector<std::uint8_t> input = preprocess(image, how);
    std::copy(input.begin(), input.end(), out);
    return static_cast<long>(input.size());
  } catch (const Failure&) {
    return -1;
  }
}
