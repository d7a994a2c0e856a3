/* The kernels for one floating type: REAL, NAME(x). Included twice by kernels.c.
 *
 * exp, cos and sin are Taylor series on a reduced range, long enough for the last bit or two; written
 * out, so that any compiler turns the loops around them into vector instructions.
 */

/* ---- elementary functions ---------------------------------------------------------------- */

#ifdef SINGLE
static inline float NAME(floor_of)(float x) { return __builtin_floorf(x); }
static inline float NAME(root)(float x) { return __builtin_sqrtf(x); }
/* 2^k for a whole k in [-126, 127]: adding 1.5 * 2^23 leaves k in the low bits of the mantissa. */
static inline float NAME(power_of_two)(float k) {
  union { float value; int32_t bits; } u;
  u.value = k + 12582912.0f + 127.0f;
  u.bits = (int32_t)((uint32_t)u.bits << 23);
  return u.value;
}
#define LOWEST -87.0f
#define LN2_HIGH 6.93359375e-1f
#define LN2_LOW -2.12194440e-4f
#define PI_HIGH 3.140625f
#define PI_MID 9.67502593994140625e-4f
#define PI_LOW 1.509957990978376432e-7f
static inline REAL NAME(exp_series)(REAL r) {
  REAL sum = (REAL)0.0001984126984126984;
  sum = sum * r + (REAL)0.001388888888888889;
  sum = sum * r + (REAL)0.008333333333333333;
  sum = sum * r + (REAL)0.041666666666666664;
  sum = sum * r + (REAL)0.16666666666666666;
  sum = sum * r + (REAL)0.5;
  sum = sum * r + (REAL)1.0;
  sum = sum * r + (REAL)1.0;
  return sum;
}
static inline REAL NAME(cos_series)(REAL z) {
  REAL sum = (REAL)2.08767569878681e-09;
  sum = sum * z + (REAL)-2.755731922398589e-07;
  sum = sum * z + (REAL)2.48015873015873e-05;
  sum = sum * z + (REAL)-0.001388888888888889;
  sum = sum * z + (REAL)0.041666666666666664;
  sum = sum * z + (REAL)-0.5;
  sum = sum * z + (REAL)1.0;
  return sum;
}
static inline REAL NAME(sin_series)(REAL z) {
  REAL sum = (REAL)1.6059043836821613e-10;
  sum = sum * z + (REAL)-2.505210838544172e-08;
  sum = sum * z + (REAL)2.7557319223985893e-06;
  sum = sum * z + (REAL)-0.0001984126984126984;
  sum = sum * z + (REAL)0.008333333333333333;
  sum = sum * z + (REAL)-0.16666666666666666;
  sum = sum * z + (REAL)1.0;
  return sum;
}
#else
static inline double NAME(floor_of)(double x) { return __builtin_floor(x); }
static inline double NAME(root)(double x) { return __builtin_sqrt(x); }
/* 2^k for a whole k in [-1022, 1023], by 1.5 * 2^52. */
static inline double NAME(power_of_two)(double k) {
  union { double value; int64_t bits; } u;
  u.value = k + 6755399441055744.0 + 1023.0;
  u.bits = (int64_t)((uint64_t)u.bits << 52);
  return u.value;
}
#define LOWEST -708.0
#define LN2_HIGH 6.93145751953125e-1
#define LN2_LOW 1.42860682030941723212e-6
#define PI_HIGH 3.1415926218032837
#define PI_MID 3.178650954705639e-08
#define PI_LOW 1.2246467991473532e-16
static inline REAL NAME(exp_series)(REAL r) {
  REAL sum = (REAL)1.6059043836821613e-10;
  sum = sum * r + (REAL)2.08767569878681e-09;
  sum = sum * r + (REAL)2.505210838544172e-08;
  sum = sum * r + (REAL)2.755731922398589e-07;
  sum = sum * r + (REAL)2.7557319223985893e-06;
  sum = sum * r + (REAL)2.48015873015873e-05;
  sum = sum * r + (REAL)0.0001984126984126984;
  sum = sum * r + (REAL)0.001388888888888889;
  sum = sum * r + (REAL)0.008333333333333333;
  sum = sum * r + (REAL)0.041666666666666664;
  sum = sum * r + (REAL)0.16666666666666666;
  sum = sum * r + (REAL)0.5;
  sum = sum * r + (REAL)1.0;
  sum = sum * r + (REAL)1.0;
  return sum;
}
static inline REAL NAME(cos_series)(REAL z) {
  REAL sum = (REAL)-8.896791392450574e-22;
  sum = sum * z + (REAL)4.110317623312165e-19;
  sum = sum * z + (REAL)-1.5619206968586225e-16;
  sum = sum * z + (REAL)4.779477332387385e-14;
  sum = sum * z + (REAL)-1.1470745597729725e-11;
  sum = sum * z + (REAL)2.08767569878681e-09;
  sum = sum * z + (REAL)-2.755731922398589e-07;
  sum = sum * z + (REAL)2.48015873015873e-05;
  sum = sum * z + (REAL)-0.001388888888888889;
  sum = sum * z + (REAL)0.041666666666666664;
  sum = sum * z + (REAL)-0.5;
  sum = sum * z + (REAL)1.0;
  return sum;
}
static inline REAL NAME(sin_series)(REAL z) {
  REAL sum = (REAL)-3.868170170630684e-23;
  sum = sum * z + (REAL)1.9572941063391263e-20;
  sum = sum * z + (REAL)-8.22063524662433e-18;
  sum = sum * z + (REAL)2.8114572543455206e-15;
  sum = sum * z + (REAL)-7.647163731819816e-13;
  sum = sum * z + (REAL)1.6059043836821613e-10;
  sum = sum * z + (REAL)-2.505210838544172e-08;
  sum = sum * z + (REAL)2.7557319223985893e-06;
  sum = sum * z + (REAL)-0.0001984126984126984;
  sum = sum * z + (REAL)0.008333333333333333;
  sum = sum * z + (REAL)-0.16666666666666666;
  sum = sum * z + (REAL)1.0;
  return sum;
}
#endif

/* e^x for x <= 0; 0 to the precision of the type below LOWEST. */
static inline REAL NAME(exp_of)(REAL x) {
  x = x < LOWEST ? LOWEST : x;
  const REAL k = NAME(floor_of)(x * (REAL)1.4426950408889634 + (REAL)0.5);
  const REAL r = (x - k * LN2_HIGH) - k * LN2_LOW;
  return NAME(exp_series)(r) * NAME(power_of_two)(k);
}

/* ---- raw values to moments --------------------------------------------------------------- */

/* Adds users to their arms: count, and sums of (value - shift) and of its square, in one pass.
 *
 * shift is the arm's first value, and whenever its count is a power of two it moves to the mean so
 * far. The mean of the first half is never far: count * (shift - mean)^2 <= sum of (value - mean)^2,
 * so the sum of squared deviations, square - sum^2 / count, never loses more than a bit to the
 * subtraction, whatever the offset of the values and whichever of them comes first.
 * sums is (arms, 3, metrics): shift, sum, square. Returns the first user whose arm is out of range,
 * or -1.
 */
static inline __attribute__((always_inline)) int64_t NAME(add_users)(
    const REAL *restrict values, const int64_t *restrict arm, int64_t users, const int64_t metrics,
    int64_t arms, int64_t *restrict count, double *restrict sums) {
  for (int64_t i = 0; i < users; i++) {
    const int64_t a = arm[i];
    if (a < 0 || a >= arms) return i;
    double *restrict shift = sums + 3 * metrics * a;
    double *restrict sum = shift + metrics;
    double *restrict square = sum + metrics;
    const REAL *restrict value = values + metrics * i;
    const int64_t seen = count[a]++;
    if (seen == 0) {
      for (int64_t m = 0; m < metrics; m++) shift[m] = value[m];
    } else if ((seen & (seen - 1)) == 0) {
      for (int64_t m = 0; m < metrics; m++) {
        const double moved = shift[m] + sum[m] / (double)seen;
        const double step = moved - shift[m]; /* as far as it really went, after rounding */
        square[m] -= step * (2 * sum[m] - (double)seen * step);
        sum[m] -= (double)seen * step;
        shift[m] = moved;
      }
    }
    for (int64_t m = 0; m < metrics; m++) {
      const double d = value[m] - shift[m];
      sum[m] += d;
      square[m] += d * d;
    }
  }
  return -1;
}

int64_t NAME(summarise)(const REAL *restrict values, const int64_t *restrict arm, int64_t users,
                        int64_t metrics, int64_t arms, int64_t *restrict count,
                        double *restrict sums) {
  switch (metrics) { /* whole vectors where the compiler knows the width: up to twice as fast */
    case 1: return NAME(add_users)(values, arm, users, 1, arms, count, sums);
    case 2: return NAME(add_users)(values, arm, users, 2, arms, count, sums);
    case 4: return NAME(add_users)(values, arm, users, 4, arms, count, sums);
    case 8: return NAME(add_users)(values, arm, users, 8, arms, count, sums);
    case 16: return NAME(add_users)(values, arm, users, 16, arms, count, sums);
    default: return NAME(add_users)(values, arm, users, metrics, arms, count, sums);
  }
}

/* ---- moments to evidence ----------------------------------------------------------------- */

/* Pools one round's deltas into running evidence, row by row, in place. Of the control it needs
 * four numbers per metric: the delta's mean is x * slope - sign, its variance
 * m2 / (n (n - 1)) * scale + x^2 * control. A row without a delta changes nothing.
 */
void NAME(stream)(int64_t rows, int64_t metrics, const REAL *restrict count,
                  const REAL *restrict mean, const REAL *restrict m2, const REAL *restrict slope,
                  const REAL *restrict sign, const REAL *restrict scale,
                  const REAL *restrict control, REAL *restrict weight, REAL *restrict pooled,
                  REAL *restrict spread) {
  for (int64_t i = 0; i < rows * metrics; i += metrics)
    for (int64_t m = 0; m < metrics; m++) {
      const REAL n = count[i + m], x = mean[i + m], q = m2[i + m], w = weight[i + m];
      const REAL total = w + n, pairs = n * (n - 1);
      const REAL one = 1 / (total * pairs); /* the only division */
      const REAL var = q * total * one * scale[m] + x * x * control[m];
      const REAL step = (x * slope[m] - sign[m] - pooled[i + m]) * (n * pairs * one);
      const int known = (n > 1) & (q >= 0) & (var - var == 0);
      weight[i + m] = known ? total : w;
      pooled[i + m] += known ? step : 0;
      spread[i + m] += known ? n * n * var : 0;
    }
}

/* Pools deltas of candidates into running evidence, one after the other, so that a candidate may occur
 * any number of times. users is (arms, 1) where across is 0, else (arms, metrics). A mean or variance
 * that is not finite changes nothing. Candidates were checked to lie in range.
 */
void NAME(update)(int64_t arms, int64_t metrics, const int64_t *restrict candidate,
                  const REAL *restrict mean, const REAL *restrict var, const REAL *restrict users,
                  int64_t across, REAL *restrict weight, REAL *restrict pooled,
                  REAL *restrict spread) {
  REAL n[BLOCK];
  for (int64_t i = 0; i < arms; i++)
    for (int64_t first = 0; first < metrics; first += BLOCK) {
      const int64_t left = metrics - first, width = left < BLOCK ? left : BLOCK;
      const int64_t at = candidate[i] * metrics + first, from = i * metrics + first;
      for (int64_t m = 0; m < width; m++) n[m] = across ? users[from + m] : users[i];
      for (int64_t m = 0; m < width; m++) {
        const REAL x = mean[from + m], v = var[from + m], w = weight[at + m];
        const int known = (x - x == 0) & (v - v == 0);
        const REAL total = w + n[m];
        const REAL share = total > 0 ? n[m] / total : 0;
        weight[at + m] = known ? total : w;
        pooled[at + m] += known ? (x - pooled[at + m]) * share : 0;
        spread[at + m] += known ? n[m] * n[m] * v : 0;
      }
    }
}

/* ---- covariances and paths --------------------------------------------------------------- */

/* Matern 5/2 between one point and n data; both are scaled by sqrt(5) / lengthscale, the data lie
 * dimension by dimension, `stride` apart. */
static inline void NAME(matern_row)(const REAL *restrict x, const REAL *restrict data, int64_t dims,
                                    int64_t n, int64_t stride, REAL *restrict k) {
  for (int64_t i = 0; i < n; i++) k[i] = 0;
  for (int64_t d = 0; d < dims; d++) {
    const REAL at = x[d];
    const REAL *restrict row = data + d * stride;
    for (int64_t i = 0; i < n; i++) {
      const REAL step = at - row[i];
      k[i] += step * step;
    }
  }
  for (int64_t i = 0; i < n; i++) {
    const REAL square = k[i], r = NAME(root)(square);
    k[i] = (1 + r + square * (REAL)(1.0 / 3.0)) * NAME(exp_of)(-r);
  }
}

/* x (points, dims), data (dims, n), both scaled; out (points, n). */
void NAME(covariance)(const REAL *restrict x, int64_t points, int64_t dims,
                      const REAL *restrict data, int64_t n, REAL *restrict out) {
  for (int64_t p = 0; p < points; p++)
    for (int64_t i = 0; i < n; i += BLOCK)
      NAME(matern_row)(x + p * dims, data + i, dims, n - i < BLOCK ? n - i : BLOCK, n,
                       out + p * n + i);
}

/* A weighted sum of correlations among x (n, dims), and its derivatives in the logarithms of the
 * lengthscales: out (1 + dims). x is scaled, data (dims, n) is x once more, dimension by dimension;
 * weight (n, n) is symmetric, of which the upper triangle is read: rows first, first + step, ...
 */
void NAME(slopes)(const REAL *restrict x, const REAL *restrict data, int64_t n, int64_t dims,
                  const REAL *restrict weight, int64_t first, int64_t step, double *restrict out) {
  REAL k[BLOCK];
  for (int64_t d = 0; d <= dims; d++) out[d] = 0;
  for (int64_t p = first; p < n; p += step) {
    const REAL *restrict row = weight + p * n;
    out[0] += row[p];
    for (int64_t i = p + 1; i < n; i += BLOCK) {
      const int64_t some = n - i < BLOCK ? n - i : BLOCK;
      const REAL *restrict w = row + i;
      REAL total = 0;
      for (int64_t j = 0; j < some; j++) k[j] = 0;
      for (int64_t d = 0; d < dims; d++) {
        const REAL at = x[p * dims + d];
        const REAL *restrict along = data + d * n + i;
        for (int64_t j = 0; j < some; j++) {
          const REAL away = at - along[j];
          k[j] += away * away;
        }
      }
#pragma omp simd reduction(+ : total)
      for (int64_t j = 0; j < some; j++) {
        const REAL square = k[j], r = NAME(root)(square);
        const REAL falling = w[j] * NAME(exp_of)(-r), linear = falling * (1 + r);
        total += linear + falling * square * (REAL)(1.0 / 3.0);
        k[j] = linear;
      }
      out[0] += 2 * (double)total;
      for (int64_t d = 0; d < dims; d++) {
        const REAL at = x[p * dims + d];
        const REAL *restrict along = data + d * n + i;
        REAL sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < some; j++) sum += k[j] * (at - along[j]) * (at - along[j]);
        out[1 + d] += (2.0 / 3.0) * (double)sum;
      }
    }
  }
}

static inline REAL NAME(dot)(const REAL *restrict a, const REAL *restrict b, int64_t n) {
  REAL sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* Functions drawn from a posterior, at every point: covariance times update, plus waves times their
 * amplitudes, nothing of the size points x n kept. omega (dims, waves) is for points scaled as above;
 * update (paths, n), cosines and sines (paths, waves), out (points, paths).
 */
void NAME(paths)(const REAL *restrict x, int64_t points, int64_t dims, const REAL *restrict data,
                 int64_t n, const REAL *restrict update, int64_t paths, const REAL *restrict omega,
                 int64_t waves, const REAL *restrict cosines, const REAL *restrict sines,
                 double *restrict out) {
  REAL k[BLOCK], s[BLOCK];
  for (int64_t p = 0; p < points; p++, x += dims, out += paths) {
    for (int64_t j = 0; j < paths; j++) out[j] = 0;
    for (int64_t i = 0; i < n; i += BLOCK) {
      const int64_t some = n - i < BLOCK ? n - i : BLOCK;
      NAME(matern_row)(x, data + i, dims, some, n, k);
      for (int64_t j = 0; j < paths; j++) out[j] += NAME(dot)(k, update + j * n + i, some);
    }
    for (int64_t i = 0; i < waves; i += BLOCK) {
      const int64_t some = waves - i < BLOCK ? waves - i : BLOCK;
      for (int64_t q = 0; q < some; q++) k[q] = 0;
      for (int64_t d = 0; d < dims; d++) {
        const REAL at = x[d];
        const REAL *restrict row = omega + d * waves + i;
        for (int64_t q = 0; q < some; q++) k[q] += at * row[q];
      }
      for (int64_t q = 0; q < some; q++) {
        const REAL turn = NAME(floor_of)(k[q] * (REAL)0.31830988618379067 + (REAL)0.5);
        const REAL r = ((k[q] - turn * PI_HIGH) - turn * PI_MID) - turn * PI_LOW;
        const REAL half = turn * (REAL)0.5; /* an odd number of half turns changes the sign */
        const REAL sign = 1 - 4 * (half - NAME(floor_of)(half));
        k[q] = sign * NAME(cos_series)(r * r);
        s[q] = sign * r * NAME(sin_series)(r * r);
      }
      for (int64_t j = 0; j < paths; j++)
        out[j] += NAME(dot)(k, cosines + j * waves + i, some) +
                  NAME(dot)(s, sines + j * waves + i, some);
    }
  }
}

#undef LOWEST
#undef LN2_HIGH
#undef LN2_LOW
#undef PI_HIGH
#undef PI_MID
#undef PI_LOW
