/* float8_e4m3fn weights with one float32 scale per block. */
#include "numbers.h"

typedef struct {
    const uint8_t *weight;
    const float *scales;
    int64_t row_bytes, rows, columns, block_rows, block_columns;
} Blocks;

#if defined(__AVX512BW__)
/* The numbers of the codes below 0x80 as bfloat16, in which all are exact: four registers. */
typedef struct {
    __m512i quarters[4];
} Table;

INLINE Table table_of_codes(void) {
    uint16_t bits[128];
    for (int code = 0; code < 128; code += LANES) {
        Bytes codes = (Bytes){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (uint8_t)code;
        put((Sink){bits, 1, 0}, code, e4m3(codes));
    }
    Table table;
    memcpy(table.quarters, bits, sizeof bits);
    return table;
}

/* Thirty-two codes, looked up. */
INLINE void put_looked_up(Table table, const uint8_t *codes, float scale, Sink sink, int64_t at) {
    __m512i code = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)codes));
    __m512i small = _mm512_permutex2var_epi16(table.quarters[0], code, table.quarters[1]);
    __m512i large = _mm512_permutex2var_epi16(table.quarters[2], code, table.quarters[3]);
    __m512i value = _mm512_mask_blend_epi16(_mm512_test_epi16_mask(code, _mm512_set1_epi16(0x40)), small, large);
    __m512i sign = _mm512_and_si512(_mm512_slli_epi16(code, 8), _mm512_set1_epi16((short)0x8000));
    __m512i bits = _mm512_or_si512(value, sign);
    __m512i first = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(bits));
    __m512i second = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(bits, 1));
    put(sink, at, (Floats)_mm512_slli_epi32(first, 16) * scale);
    put(sink, at + LANES, (Floats)_mm512_slli_epi32(second, 16) * scale);
}
#else
typedef struct {
    int unused;
} Table;

INLINE Table table_of_codes(void) { return (Table){0}; }
#endif

INLINE void run_of_one_scale(Table table, const uint8_t *codes, float scale, int64_t count, Sink sink, int64_t at) {
    int64_t i = 0;
#if defined(__AVX512BW__)
    for (; i + 2 * LANES <= count; i += 2 * LANES) put_looked_up(table, codes + i, scale, sink, at + i);
#else
    (void)table;
#endif
    for (; i + LANES <= count; i += LANES) put(sink, at + i, e4m3(load(codes + i)) * scale);
    if (i < count) {
        uint8_t last[LANES] = {0};
        memcpy(last, codes + i, (size_t)(count - i));
        put_some(sink, at + i, e4m3(load(last)) * scale, (int)(count - i));
    }
}

INLINE void all_rows(Blocks from, Sink sink) {
    int64_t scale_columns = (from.columns + from.block_columns - 1) / from.block_columns;
    Table table = table_of_codes();
    for (int64_t row = 0; row < from.rows; row++) {
        const float *scales = from.scales + row / from.block_rows * scale_columns;
        const uint8_t *codes = from.weight + row * from.row_bytes;
        for (int64_t block = 0; block < scale_columns; block++) {
            int64_t start = block * from.block_columns, left = from.columns - start;
            int64_t count = left < from.block_columns ? left : from.block_columns;
            run_of_one_scale(table, codes + start, one_nan(scales[block]), count, sink, row * from.columns + start);
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
