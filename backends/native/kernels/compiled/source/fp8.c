/* float8_e4m3fn weights with one float32 scale per block. */
#include "numbers.h"

typedef struct {
    const uint8_t *weight;
    const float *scales;
    int64_t row_bytes, rows, columns, block_rows, block_columns;
} Blocks;

INLINE void run_of_one_scale(const uint8_t *codes, float scale, int64_t count, Sink sink, int64_t at) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) put(sink, at + i, e4m3(load(codes + i)) * scale);
    if (i < count) {
        uint8_t last[LANES] = {0};
        memcpy(last, codes + i, (size_t)(count - i));
        put_some(sink, at + i, e4m3(load(last)) * scale, (int)(count - i));
    }
}

INLINE void all_rows(Blocks from, Sink sink) {
    int64_t scale_columns = (from.columns + from.block_columns - 1) / from.block_columns;
    for (int64_t row = 0; row < from.rows; row++) {
        const float *scales = from.scales + row / from.block_rows * scale_columns;
        const uint8_t *codes = from.weight + row * from.row_bytes;
        for (int64_t block = 0; block < scale_columns; block++) {
            int64_t start = block * from.block_columns, left = from.columns - start;
            int64_t count = left < from.block_columns ? left : from.block_columns;
            run_of_one_scale(codes + start, one_nan(scales[block]), count, sink, row * from.columns + start);
        }
    }
}

/* Weight [rows, columns], its rows `row_bytes` apart; scales [ceil(rows / block_rows), ceil(columns / block_columns)]. */
EXPORT void dequantize_fp8_blocks(const uint8_t *weight, int64_t row_bytes, const float *scales, int64_t rows,
                                  int64_t columns, int64_t block_rows, int64_t block_columns, void *to, int32_t dtype) {
    Blocks from = {weight, scales, row_bytes, rows, columns, block_rows, block_columns};
    int is_aligned = columns % LANES == 0 && block_columns % LANES == 0;
    int streamed = is_aligned && is_streamed(to, rows * columns * (dtype == TO_BF16 ? 2 : 4));
    WITH_SINK(to, dtype, streamed, all_rows(from, sink));
}
