// What treats every image, or every number, alone: ReLU and pooling on rows of pixels, and the way of a picture into the network.
#include "tile.cuh"

__device__ inline int thread_number() { return blockIdx.x * blockDim.x + threadIdx.x; }

KERNEL(256, relu)(const float* x, float* y, int count) {
  const int i = thread_number();
  if (i < count) y[i] = rectified(x[i]);
}
KERNEL(256, relu_gradient)(const float* dy, const float* y, float* dx, int count) {
  const int i = thread_number();
  if (i < count) dx[i] = y[i] > 0.f ? dy[i] : 0.f;
}

// Windows of K×K pixels, `stride` apart, on an image inside a border of `padding`: what of window (i, j) lies inside.
struct Window {
  int top, left, bottom, right;
};
__device__ inline Window window(int i, int j, int kernel, int stride, int padding, int height, int width) {
  const int top = i * stride - padding, left = j * stride - padding;
  return {max(top, 0), max(left, 0), min(top + kernel, height), min(left + kernel, width)};
}

// One thread a window. winner: where the maximum stands in the image, the first of equals; null for the mean of K² pixels.
KERNEL(256, pool)
(const float* x, float* y, int* winner, int count, int height, int width, int high, int wide, int kernel, int stride, int padding) {
  const int o = thread_number();
  if (o >= count) return;
  const float* image = x + static_cast<size_t>(o / (high * wide)) * height * width;
  const Window seen = window(o / wide % high, o % wide, kernel, stride, padding, height, width);
  float sum = 0.f, largest = -infinity();
  int where = seen.top * width + seen.left;
  for (int i = seen.top; i < seen.bottom; ++i)
    for (int j = seen.left; j < seen.right; ++j) {
      const float value = image[i * width + j];
      sum += value;
      if (largest == largest && (value > largest || value != value)) {  // a NaN wins, and stays
        where = i * width + j;
        largest = value;
      }
    }
  if (winner != nullptr) winner[o] = where;
  y[o] = winner != nullptr ? largest : sum / (kernel * kernel);
}

// One thread a pixel: the windows that see it, in their order, give it what is its own.
KERNEL(256, pool_gradient)
(const float* dy, const int* winner, float* dx, int count, int height, int width, int high, int wide, int kernel, int stride,
 int padding) {
  const int p = thread_number();
  if (p >= count) return;
  const int i = p / width % height, j = p % width;
  const size_t first = static_cast<size_t>(p / (height * width)) * high * wide;
  const int above = max(0, (i + padding - kernel + stride) / stride), before = max(0, (j + padding - kernel + stride) / stride);
  float sum = 0.f;
  for (int a = above; a < high && a * stride - padding <= i; ++a)
    for (int b = before; b < wide && b * stride - padding <= j; ++b) {
      const float share = dy[first + a * wide + b];
      if (winner == nullptr)
        sum += share / (kernel * kernel);
      else if (winner[first + a * wide + b] == i * width + j)
        sum += share;
    }
  dx[p] = sum;
}

// One warp a feature map: y[n][c] = mean of x[c][n], and back.
KERNEL(128, global_average)(const float* x, float* y, int batch, int channels, int size) {
  const int map = blockIdx.x * (blockDim.x / 32) + warp();
  if (map >= batch * channels) return;
  const float* image = x + static_cast<size_t>(map) * size;
  float sum = 0.f;
  for (int p = lane(); p < size; p += 32) sum += image[p];
  sum = sum_over_warp(sum);
  if (lane() == 0) y[map % batch * channels + map / batch] = sum / size;
}
KERNEL(256, global_average_gradient)(const float* dy, float* dx, int batch, int channels, int size) {
  const int p = thread_number();
  if (p >= batch * channels * size) return;
  const int map = p / size;
  dx[p] = dy[map % batch * channels + map / batch] / size;
}

// Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): four random words for a counter and a key.
struct Words {
  unsigned long long w[4];
};
__device__ inline Words philox(unsigned long long counter, unsigned long long key0, unsigned long long key1) {
  Words c = {{counter, 0, 0, 0}};
  for (int round = 0; round < 10; ++round) {
    const unsigned long long a = 0xD2E7470EE14C6C93ull, b = 0xCA5A826395121157ull;
    c = {{__umul64hi(b, c.w[2]) ^ c.w[1] ^ key0, b * c.w[2], __umul64hi(a, c.w[0]) ^ c.w[3] ^ key1, a * c.w[0]}};
    key0 += 0x9E3779B97F4A7C15ull;
    key1 += 0xBB67AE8584CAA73Bull;
  }
  return c;
}

// What data.prepared says: the chosen pictures normalised, mirrored and cropped, with the very same choices. One block an image.
// y[c][n] lies channel by channel. augmented: with a key; else normalised only.
KERNEL(256, prepare_images)
(const unsigned char* pictures, const long long* chosen, const float* mean, const float* std, float* y, unsigned long long key0,
 unsigned long long key1, int augmented, int padding, int flip, int batch, int channels, int height, int width) {
  const int n = blockIdx.x, size = height * width;
  int mirrored = 0, down = 0, right = 0;
  if (augmented) {
    const Words words = philox(n + 1, key0, key1);
    mirrored = flip && words.w[0] >> 63;
    down = static_cast<int>((words.w[1] >> 32) * (2 * padding + 1) >> 32) - padding;
    right = static_cast<int>((words.w[2] >> 32) * (2 * padding + 1) >> 32) - padding;
  }
  const unsigned char* picture = pictures + static_cast<size_t>(chosen[n]) * channels * size;
  for (int e = threadIdx.x; e < channels * size; e += blockDim.x) {
    const int c = e / size, i = e % size / width + down, j = e % width + right;
    const bool inside = i >= 0 && i < height && j >= 0 && j < width;
    const int from = mirrored ? width - 1 - j : j;
    y[(static_cast<size_t>(c) * batch + n) * size + e % size] =
        inside ? (static_cast<float>(picture[(c * height + i) * width + from]) - mean[c]) / std[c] : 0.f;
  }
}
