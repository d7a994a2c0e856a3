/* What PyTorch's own operators are far from the machine's limit in, for the CPU.
 *
 * Every function works on plain C-contiguous arrays that do not overlap, allocates nothing and can
 * run in several threads on parts of its rows. Each has a twin in PyTorch, which is the definition:
 * stats/moments.py, stats/evidence.py, surrogate/kernels.py, surrogate/paths.py. Reductions that
 * may be reordered say so by a pragma; everything else is computed as written, since the exponential
 * and the cosine rest on it.
 */
#include <stdint.h>

/* Columns of a row of the covariance that are worked on at once: they stay in the first cache. */
#define BLOCK 256

#define REAL double
#define NAME(x) x##_f64
#include "by_type.h"
#undef REAL
#undef NAME

#define SINGLE
#define REAL float
#define NAME(x) x##_f32
#include "by_type.h"
