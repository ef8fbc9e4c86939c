// What the Predict calls took, in the zoo's words.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

class Timing {
 public:
  // One Predict call of `call_ms` on a batch of `batch` rows, `images` of which are no padding.
  void Add(double call_ms, size_t batch, size_t images);

  // "NN inference cost average time: 25.915ms of infer_count 50000"; the zoo prints no blank before "ms".
  std::string StdoutLine() const;

  // The same with the blank that the zoo writes to its file, then percentiles over the calls and the throughput.
  std::string FileText() const;

 private:
  double AverageMs() const;
  double PercentileMs(double percent) const;

  std::vector<double> row_ms_;
  double total_ms_ = 0;
  size_t images_ = 0;
};
