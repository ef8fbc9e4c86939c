#include "timing.h"

#include <algorithm>
#include <cmath>
#include <sstream>

void Timing::Add(double call_ms, size_t batch, size_t images) {
  row_ms_.push_back(call_ms / static_cast<double>(batch));
  total_ms_ += call_ms;
  images_ += images;
}

std::string Timing::StdoutLine() const {
  std::ostringstream text;
  text << "NN inference cost average time: " << AverageMs() << "ms of infer_count " << images_ << '\n';
  return text.str();
}

std::string Timing::FileText() const {
  std::ostringstream text;
  text << "NN inference cost average time: " << AverageMs() << " ms of infer_count " << images_ << '\n';
  for (const int percent : {50, 90, 99}) {
    text << 'p' << percent << ": " << PercentileMs(percent) << " ms\n";
  }
  text << "images/s: " << 1000.0 / AverageMs() << '\n';
  return text.str();
}

// Padding costs time and is no image, so the padded last batch raises the average: that is the price per image asked
// for.
double Timing::AverageMs() const { return total_ms_ / static_cast<double>(images_); }

// Nearest rank: always a time that was measured.
double Timing::PercentileMs(double percent) const {
  std::vector<double> sorted = row_ms_;
  std::sort(sorted.begin(), sorted.end());
  const auto rank = static_cast<size_t>(std::ceil(percent / 100.0 * static_cast<double>(sorted.size())));
  return sorted.at(std::max<size_t>(rank, 1) - 1);
}
