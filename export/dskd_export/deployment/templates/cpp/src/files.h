// Files to bytes, numbers, labels and pixels; all numbers in files are little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// RGB, 8 bits a channel, row by row from the top: pixels[(y * width + x) * 3 + channel].
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> pixels;
};

std::vector<std::uint8_t> read_bytes(const std::string& path);

// A file of exactly this many bytes.
std::vector<std::uint8_t> read_exactly(const std::string& path, std::size_t size, const std::string& what);

std::vector<float> read_floats(const std::string& path, std::size_t count, const std::string& what);

// labels.txt: one class a line, in the order of the logits.
std::vector<std::string> read_labels(const std::string& path, std::size_t classes);

// Binary PPM (P6) with at most 255 a channel: https://netpbm.sourceforge.net/doc/ppm.html
Image read_ppm(const std::string& path);

// Nothing but pixels, as in Image.
Image read_raw(const std::string& path, int width, int height);

void write_bytes(const std::string& path, const std::vector<std::uint8_t>& bytes);
