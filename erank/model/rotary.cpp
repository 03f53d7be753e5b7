#include "erank/model/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace erank::model {
namespace {

constexpr double kPi = std::numbers::pi;

// base ^ (2 i / D): what one turn of pair i takes, in positions over 2 pi.
std::vector<float> wavelengths(double base, int64_t head_dim) {
  std::vector<float> out;
  for (int64_t i = 0; i < head_dim / 2; ++i)
    out.push_back(std::pow(static_cast<float>(base),
                           static_cast<float>(2 * i) / static_cast<float>(head_dim)));
  return out;
}

// Pairs that turn often keep their frequency, those that turn less than beta_slow times over the
// original length are interpolated, with a ramp between.
RotaryFrequencies yarn(const ModelConfig& c) {
  const RopeScaling& s = c.rope_scaling;
  const auto scaled = [&](double mscale) {
    return s.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(s.factor) + 1.0;
  };
  RotaryFrequencies out;
  if (s.attention_factor)
    out.attention_factor = static_cast<float>(*s.attention_factor);
  else if (s.mscale != 0 && s.mscale_all_dim != 0)
    out.attention_factor = static_cast<float>(scaled(s.mscale) / scaled(s.mscale_all_dim));
  else
    out.attention_factor = static_cast<float>(scaled(1));

  const auto dim = static_cast<double>(c.head_dim);
  // The pair that turns so often over the original length.
  const auto pair_of = [&](double turns) {
    const auto original = static_cast<double>(s.original_max_position_embeddings);
    return dim * std::log(original / (turns * 2 * kPi)) / (2 * std::log(c.rope_theta));
  };
  double low = pair_of(s.beta_fast), high = pair_of(s.beta_slow);
  if (s.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  const auto first = static_cast<float>(low), width = static_cast<float>(high - low);
  const std::vector<float> waves = wavelengths(c.rope_theta, c.head_dim);
  for (size_t i = 0; i < waves.size(); ++i) {
    const float kept = 1 - std::clamp((static_cast<float>(i) - first) / width, 0.0f, 1.0f);
    out.inverse.push_back(1.0f / (static_cast<float>(s.factor) * waves[i]) * (1 - kept) +
                          1.0f / waves[i] * kept);
  }
  return out;
}

RotaryFrequencies longrope(const ModelConfig& c, int64_t length) {
  const RopeScaling& s = c.rope_scaling;
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  RotaryFrequencies out;
  if (s.attention_factor)
    out.attention_factor = static_cast<float>(*s.attention_factor);
  else if (s.factor > 1)
    out.attention_factor =
        static_cast<float>(std::sqrt(1 + std::log(s.factor) / std::log(original)));
  const auto& factors =
      length > s.original_max_position_embeddings ? s.long_factor : s.short_factor;
  const std::vector<float> waves = wavelengths(c.rope_theta, c.head_dim);
  for (size_t i = 0; i < waves.size(); ++i)
    out.inverse.push_back(1.0f / (static_cast<float>(factors[i]) * waves[i]));
  return out;
}

// Waves longer than the original length over low_freq_factor are stretched, those shorter than it
// over high_freq_factor kept, with a ramp between.
float llama3(const RopeScaling& s, float inverse) {
  const auto original = static_cast<double>(s.original_max_position_embeddings);
  const auto low_wave = static_cast<float>(original / s.low_freq_factor);
  const auto high_wave = static_cast<float>(original / s.high_freq_factor);
  const auto factor = static_cast<float>(s.factor);
  const float wave = static_cast<float>(2 * kPi) / inverse;
  if (wave > low_wave) return inverse / factor;
  if (wave < high_wave) return inverse;
  const float smooth =
      (static_cast<float>(original) / wave - static_cast<float>(s.low_freq_factor)) /
      static_cast<float>(s.high_freq_factor - s.low_freq_factor);
  return (1 - smooth) * inverse / factor + smooth * inverse;
}

}  // namespace

RotaryFrequencies rotary_frequencies(const ModelConfig& c, int64_t length) {
  const RopeScaling& s = c.rope_scaling;
  if (s.kind == RopeKind::kYarn) return yarn(c);
  if (s.kind == RopeKind::kLongrope) return longrope(c, length);
  double base = c.rope_theta;
  if (s.kind == RopeKind::kDynamic) {
    const auto dim = static_cast<double>(c.head_dim),
               most = static_cast<double>(c.max_position_embeddings);
    const double longest = std::max(static_cast<double>(length), most);
    base *= std::pow(s.factor * longest / most - (s.factor - 1), dim / (dim - 2));
  }
  RotaryFrequencies out;
  for (const float wave : wavelengths(base, c.head_dim)) {
    float inverse = 1.0f / wave;
    if (s.kind == RopeKind::kLinear) inverse /= static_cast<float>(s.factor);
    if (s.kind == RopeKind::kLlama3) inverse = llama3(s, inverse);
    out.inverse.push_back(inverse);
  }
  return out;
}

RotaryTable::RotaryTable(const ModelConfig& config)
    : max_positions_(config.context()),
      frequencies_(rotary_frequencies(config, config.context())) {}

bool RotaryTable::reach(int64_t position) {
  if (position < num_positions_) return false;
  constexpr int64_t kStep = 4096;
  const int64_t count =
      std::max(position + 1, std::min(max_positions_, (position / kStep + 1) * kStep));
  for (int64_t p = num_positions_; p < count; ++p)
    for (const float inverse : frequencies_.inverse) {
      const float angle = static_cast<float>(p) * inverse;
      cos_.push_back(std::cos(angle) * frequencies_.attention_factor);
      sin_.push_back(std::sin(angle) * frequencies_.attention_factor);
    }
  num_positions_ = count;
  return true;
}

}  // namespace erank::model
