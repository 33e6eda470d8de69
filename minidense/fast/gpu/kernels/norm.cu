// Batch norm over rows of pixels: statistics, what follows from them for a layer, and the same for gradients.
#include "tile.cuh"

constexpr int THREADS = 256;
constexpr int TILE = 4096;  // pixels that one block looks at

// Σ over the threads of a block, in one fixed order; every thread gets it. Begins and ends with a barrier.
__device__ inline float sum_over_block(float value, float* space) {
  value = sum_over_warp(value);
  __syncthreads();
  if (lane() == 0) space[warp()] = value;
  __syncthreads();
  float sum = 0.f;
  for (int i = 0; i < THREADS / 32; ++i) sum += space[i];
  return sum;
}

// The pixels of a tile that a thread takes care of, four at a time.
template <class Work>
__device__ inline void for_quads(int pixels, Work work) {
  const int begin = blockIdx.x * TILE, end = min(begin + TILE, pixels);
  for (int p = begin + 4 * threadIdx.x; p < end; p += 4 * THREADS) work(p);
}

// For each row the mean and Σ (x − mean)² over a tile of pixels, at moments[row·tiles + tile]. Grid (tiles, rows).
KERNEL(256, moments_of_rows)(const Stored* x, float2* moments, int pixels) {
  __shared__ float space[THREADS / 32];
  const Stored* row = x + static_cast<size_t>(blockIdx.y) * pixels;
  const int width = min(TILE, pixels - static_cast<int>(blockIdx.x) * TILE);
  float sum = 0.f, about = 0.f;
  for_quads(pixels, [&](int p) {
    const Four four = load4(row, p, pixels);
    sum += (four.v[0] + four.v[1]) + (four.v[2] + four.v[3]);
  });
  const float mean = sum_over_block(sum, space) / width;
  for_quads(pixels, [&](int p) {
    const Four four = load4(row, p, pixels);
#pragma unroll
    for (int i = 0; i < 4; ++i) about = fmaf(four.v[i] - mean, four.v[i] - mean, about);
  });
  about = sum_over_block(about, space);
  if (threadIdx.x == 0) moments[blockIdx.y * static_cast<size_t>(gridDim.x) + blockIdx.x] = make_float2(mean, about);
}

// One warp a channel. Channels from `known` on: mean and biased variance over all tiles of `width` pixels (Chan, Golub & LeVeque 1983).
// All channels: the fold of a layer's γ and β with these statistics.
KERNEL(128, prepare_norm)
(const float2* moments, int tiles, int width, int pixels, float* mean, float* var, int known, const float* gamma, const float* beta,
 Fold* fold, int channels, float eps) {
  const int c = blockIdx.x * (blockDim.x / 32) + warp();
  if (c >= channels) return;
  double m = 0., v = 0.;
  if (c >= known) {
    const float2* parts = moments + static_cast<size_t>(c - known) * tiles;
    for (int tile = lane(); tile < tiles; tile += 32) m += static_cast<double>(parts[tile].x) * min(width, pixels - tile * width);
    m = sum_over_warp(m) / pixels;
    for (int tile = lane(); tile < tiles; tile += 32) {
      const double apart = parts[tile].x - m;
      v += parts[tile].y + apart * apart * min(width, pixels - tile * width);
    }
    v = sum_over_warp(v) / pixels;
    if (lane() == 0) {
      mean[c] = static_cast<float>(m);
      var[c] = static_cast<float>(v);
    }
  } else {
    m = mean[c];
    v = var[c];
  }
  if (lane() == 0) {
    const double inv_std = 1. / sqrt(v + static_cast<double>(eps));
    fold[c] = Fold{static_cast<float>(m), static_cast<float>(gamma[c] * inv_std), beta[c], static_cast<float>(inv_std)};
  }
}

// total[e] = Σ parts[share][e], share by share.
__device__ inline void add_up(const float* parts, float* total, int shares, int count, int e) {
  if (e >= count) return;
  float sum = 0.f;
#pragma unroll 8
  for (int share = 0; share < shares; ++share) sum += parts[static_cast<size_t>(share) * count + e];
  total[e] = sum;
}

KERNEL(128, sum_of_parts)(const float* parts, float* total, int shares, int count) {
  add_up(parts, total, shares, count, blockIdx.x * blockDim.x + threadIdx.x);
}

// The end of a norm's and its convolution's way back, in one launch. The first `norm_blocks` blocks, one warp a channel: dβ = Σ dz and
// dγ = Σ dz·x̂ over all tiles, and what the norm takes from dx, s·dβ/M and s·dγ/M, onto the debt. The others: sum_of_parts.
// settles: the statistics are the batch's own. first: nothing was owed before.
KERNEL(128, finish_norm)
(const float2* sums, int tiles, int pixels, const Fold* fold, float* dgamma, float* dbeta, Debt* debt, int settles, int first,
 int channels, int norm_blocks, const float* parts, float* total, int shares, int count) {
  if (static_cast<int>(blockIdx.x) >= norm_blocks) {
    add_up(parts, total, shares, count, (blockIdx.x - norm_blocks) * blockDim.x + threadIdx.x);
    return;
  }
  const int c = blockIdx.x * (blockDim.x / 32) + warp();
  if (c >= channels) return;
  const float2* mine = sums + static_cast<size_t>(c) * tiles;
  double shift = 0., along = 0.;
  for (int tile = lane(); tile < tiles; tile += 32) {
    shift += mine[tile].x;
    along += mine[tile].y;
  }
  shift = sum_over_warp(shift);
  along = sum_over_warp(along);
  if (lane() != 0) return;
  dgamma[c] = static_cast<float>(along);
  dbeta[c] = static_cast<float>(shift);
  const double share = settles ? fold[c].scale / static_cast<double>(pixels) : 0.;
  const Debt before = first ? Debt{0.f, 0.f} : debt[c];
  debt[c] = Debt{static_cast<float>(before.level + share * shift), static_cast<float>(before.slope + share * along)};
}

// dx −= its debt, in place, with statistics (rows,) of these channels. Grid (tiles, rows).
KERNEL(256, settle)(Stored* dx, const Stored* x, const float* mean, const float* var, const Debt* debt, float eps, int pixels) {
  const size_t offset = static_cast<size_t>(blockIdx.y) * pixels;
  const Fold fold = {mean[blockIdx.y], 0.f, 0.f, 1.f / sqrtf(var[blockIdx.y] + eps)};
  const Debt owed = debt[blockIdx.y];
  for_quads(pixels, [&](int p) {
    Four four = load4(dx + offset, p, pixels);
    const Four here = load4(x + offset, p, pixels);
#pragma unroll
    for (int i = 0; i < 4; ++i) four.v[i] = settled(four.v[i], here.v[i], fold, owed);
    store4(dx + offset, p, four);
  });
}

// y = BN(x), max(·, 0) of it where `rectify`. Grid (tiles, rows).
KERNEL(256, normalise)(const Stored* x, const Fold* fold, Stored* y, int rectify, int pixels) {
  const size_t offset = static_cast<size_t>(blockIdx.y) * pixels;
  const Fold f = fold[blockIdx.y];
  for_quads(pixels, [&](int p) {
    Four four = load4(x + offset, p, pixels);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      four.v[i] = normalised(four.v[i], f);
      if (rectify) four.v[i] = rectified(four.v[i]);
    }
    store4(y + offset, p, four);
  });
}

// Back through `normalise`: dx = s·dz where dz is dy, or dy where BN(x) > 0; and Σ dz, Σ dz·x̂ of each tile. Grid (tiles, rows).
KERNEL(256, normalise_gradient)
(const Stored* dy, const Stored* x, const Fold* fold, Stored* dx, float2* sums, int rectify, int pixels) {
  __shared__ float space[THREADS / 32];
  const size_t offset = static_cast<size_t>(blockIdx.y) * pixels;
  const Fold f = fold[blockIdx.y];
  float sum = 0.f, along = 0.f;
  for_quads(pixels, [&](int p) {
    Four four = load4(dy + offset, p, pixels);
    const Four here = load4(x + offset, p, pixels);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (rectify && !(normalised(here.v[i], f) > 0.f)) four.v[i] = 0.f;
      sum += four.v[i];
      along = fmaf(four.v[i], (here.v[i] - f.mean) * f.inv_std, along);
      four.v[i] *= f.scale;
    }
    store4(dx + offset, p, four);
  });
  sum = sum_over_block(sum, space);
  along = sum_over_block(along, space);
  if (threadIdx.x == 0) sums[blockIdx.y * static_cast<size_t>(gridDim.x) + blockIdx.x] = make_float2(sum, along);
}

// What a transition's 1×1 convolution sees, the pooling done first: y[c][i, j] = ¼·Σ relu(BN(x[c][2i + {0, 1}, 2j + {0, 1}])).
// pixels and width are those of y. Grid (tiles of x, rows).
KERNEL(256, normalise_and_pool)(const Stored* x, const Fold* fold, Stored* y, int pixels, int width) {
  const Fold f = fold[blockIdx.y];
  const Stored* from = x + static_cast<size_t>(blockIdx.y) * 4 * pixels;
  Stored* to = y + static_cast<size_t>(blockIdx.y) * pixels;
  for (int p = blockIdx.x * TILE / 4 + threadIdx.x; p < min((static_cast<int>(blockIdx.x) + 1) * TILE / 4, pixels); p += THREADS) {
    const int j = p % width, i = p / width;  // i counts on through the images
    const size_t corner = (static_cast<size_t>(2 * i) * width + j) * 2;
    const float2 upper = load2(from + corner, 0), lower = load2(from + corner + 2 * width, 0);
    const float above = rectified(normalised(upper.x, f)) + rectified(normalised(upper.y, f));
    const float below = rectified(normalised(lower.x, f)) + rectified(normalised(lower.y, f));
    to[p] = narrowed(0.25f * (above + below));
  }
}

// Back through it: dx = s/4·dy where BN(x) > 0, and Σ, Σ·x̂ of the unscaled gradient of each tile.
KERNEL(256, normalise_and_pool_gradient)
(const Stored* dy, const Stored* x, const Fold* fold, Stored* dx, float2* sums, int pixels, int width) {
  __shared__ float space[THREADS / 32];
  const Fold f = fold[blockIdx.y];
  const Stored* from = dy + static_cast<size_t>(blockIdx.y) * pixels;
  const size_t offset = static_cast<size_t>(blockIdx.y) * 4 * pixels;
  float sum = 0.f, along = 0.f;
  for (int p = blockIdx.x * TILE / 4 + threadIdx.x; p < min((static_cast<int>(blockIdx.x) + 1) * TILE / 4, pixels); p += THREADS) {
    const int j = p % width, i = p / width;
    const float quarter = 0.25f * widened(from[p]);
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const size_t corner = offset + (static_cast<size_t>(2 * i + lower) * width + j) * 2;
      const float2 here = load2(x + corner, 0);
      const float2 dz = make_float2(normalised(here.x, f) > 0.f ? quarter : 0.f, normalised(here.y, f) > 0.f ? quarter : 0.f);
      sum += dz.x + dz.y;
      along += dz.x * ((here.x - f.mean) * f.inv_std) + dz.y * ((here.y - f.mean) * f.inv_std);
      store2(dx + corner, 0, make_float2(f.scale * dz.x, f.scale * dz.y));
    }
  }
  sum = sum_over_block(sum, space);
  along = sum_over_block(along, space);
  if (threadIdx.x == 0) sums[blockIdx.y * static_cast<size_t>(gridDim.x) + blockIdx.x] = make_float2(sum, along);
}

// float32 to what feature maps are stored as, and back.
KERNEL(256, narrow)(const float* x, Stored* y, int pixels) {
  const size_t offset = static_cast<size_t>(blockIdx.y) * pixels;
  const int begin = blockIdx.x * TILE, end = min(begin + TILE, pixels);
  for (int p = begin + threadIdx.x; p < end; p += THREADS) y[offset + p] = narrowed(x[offset + p]);
}
KERNEL(256, widen)(const Stored* x, float* y, int pixels) {
  const size_t offset = static_cast<size_t>(blockIdx.y) * pixels;
  const int begin = blockIdx.x * TILE, end = min(begin + TILE, pixels);
  for (int p = begin + threadIdx.x; p < end; p += THREADS) y[offset + p] = widened(x[offset + p]);
}

// One norm that keeps running statistics: its own arrays and the batch's, by address.
struct Tracked {
  float* running_mean;
  float* running_var;
  long long* batches;
  const float* mean;
  const float* var;
  long long channels;
  double momentum;
};

// Move the running statistics of many norms towards the batch's (PyTorch's convention: the variance as the population's). unbiased is M/(M − 1). Grid (norms).
KERNEL(256, track)(const Tracked* norms, float unbiased) {
  const Tracked norm = norms[blockIdx.x];
  const float momentum = static_cast<float>(norm.momentum);
  for (int c = threadIdx.x; c < norm.channels; c += blockDim.x) {
    norm.running_mean[c] = fmaf(momentum, norm.mean[c], (1.f - momentum) * norm.running_mean[c]);
    norm.running_var[c] = fmaf(momentum, unbiased * norm.var[c], (1.f - momentum) * norm.running_var[c]);
  }
  if (threadIdx.x == 0 && norm.batches != nullptr) *norm.batches += 1;
}
