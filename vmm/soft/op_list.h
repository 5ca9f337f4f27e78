/* SPDX-License-Identifier: MIT */
/*
 * op_list: the kinds of operations, as a table that the enum and the handler table are made from.
 *
 * The decoder computes kinds: sizes are neighbours (8, 16, 32, 64 bit), forms follow each other.
 * rr register, register; rm register, memory; mr memory, register; ri and mi with an immediate.
 */
#ifndef VMM_SOFT_OP_LIST_H
#define VMM_SOFT_OP_LIST_H

#define SOFT_SIZES4(X, n) X(n##_8) X(n##_16) X(n##_32) X(n##_64)
#define SOFT_SIZES3(X, n) X(n##_16) X(n##_32) X(n##_64)
#define SOFT_FORMS5(X, n)                                                                          \
    SOFT_SIZES4(X, n##_rr)                                                                         \
    SOFT_SIZES4(X, n##_rm)                                                                         \
    SOFT_SIZES4(X, n##_mr) SOFT_SIZES4(X, n##_ri) SOFT_SIZES4(X, n##_mi)
#define SOFT_LOCKED(X, n) SOFT_SIZES4(X, lock_##n##_mr) SOFT_SIZES4(X, lock_##n##_mi)
/* Count in imm or in CL. */
#define SOFT_SHIFTS(X, n)                                                                          \
    SOFT_SIZES4(X, n##_ri)                                                                         \
    SOFT_SIZES4(X, n##_rc) SOFT_SIZES4(X, n##_mi) SOFT_SIZES4(X, n##_mc)
#define SOFT_UNARY(X, n)  SOFT_SIZES4(X, n##_r) SOFT_SIZES4(X, n##_m)
#define SOFT_UNARYL(X, n) SOFT_UNARY(X, n) SOFT_SIZES4(X, lock_##n##_m)
#define SOFT_RM3(X, n)    SOFT_SIZES3(X, n##_r) SOFT_SIZES3(X, n##_m)
#define SOFT_BITS(X, n)                                                                            \
    SOFT_SIZES3(X, n##_rr) SOFT_SIZES3(X, n##_ri) SOFT_SIZES3(X, n##_mr) SOFT_SIZES3(X, n##_mi)
#define SOFT_BITSL(X, n)                                                                           \
    SOFT_BITS(X, n) SOFT_SIZES3(X, lock_##n##_mr) SOFT_SIZES3(X, lock_##n##_mi)
/* One per condition code. */
#define SOFT_CC16(X, n)                                                                            \
    X(n##_0)                                                                                       \
    X(n##_1)                                                                                       \
    X(n##_2)                                                                                       \
    X(n##_3)                                                                                       \
    X(n##_4)                                                                                       \
    X(n##_5)                                                                                       \
    X(n##_6)                                                                                       \
    X(n##_7)                                                                                       \
    X(n##_8)                                                                                       \
    X(n##_9) X(n##_10) X(n##_11) X(n##_12) X(n##_13) X(n##_14) X(n##_15)

#define SOFT_OPS_ARITHMETIC(X)                                                                     \
    SOFT_FORMS5(X, add)                                                                            \
    SOFT_FORMS5(X, or)                                                                             \
    SOFT_FORMS5(X, adc)                                                                            \
    SOFT_FORMS5(X, sbb)                                                                            \
    SOFT_FORMS5(X, and)                                                                            \
    SOFT_FORMS5(X, sub)                                                                            \
    SOFT_FORMS5(X, xor)                                                                            \
    SOFT_FORMS5(X, cmp)                                                                            \
    SOFT_FORMS5(X, test)                                                                           \
    SOFT_FORMS5(X, mov)                                                                            \
    SOFT_LOCKED(X, add)                                                                            \
    SOFT_LOCKED(X, or)                                                                             \
    SOFT_LOCKED(X, adc)                                                                            \
    SOFT_LOCKED(X, sbb) SOFT_LOCKED(X, and) SOFT_LOCKED(X, sub) SOFT_LOCKED(X, xor)

#define SOFT_OPS_SHIFT(X)                                                                          \
    SOFT_SHIFTS(X, rol)                                                                            \
    SOFT_SHIFTS(X, ror)                                                                            \
    SOFT_SHIFTS(X, rcl)                                                                            \
    SOFT_SHIFTS(X, rcr)                                                                            \
    SOFT_SHIFTS(X, shl)                                                                            \
    SOFT_SHIFTS(X, shr)                                                                            \
    SOFT_SHIFTS(X, sal)                                                                            \
    SOFT_SHIFTS(X, sar)                                                                            \
    X(shl_n_32) X(shl_n_64) X(shr_n_32) X(shr_n_64) X(sar_n_32) X(sar_n_64)                        \
    SOFT_SIZES3(X, shld_ri) SOFT_SIZES3(X, shld_rc) SOFT_SIZES3(X, shld_mi)                        \
    SOFT_SIZES3(X, shld_mc) SOFT_SIZES3(X, shrd_ri) SOFT_SIZES3(X, shrd_rc)                        \
    SOFT_SIZES3(X, shrd_mi) SOFT_SIZES3(X, shrd_mc)

#define SOFT_OPS_UNARY(X)                                                                          \
    SOFT_UNARYL(X, inc)                                                                            \
    SOFT_UNARYL(X, dec)                                                                            \
    SOFT_UNARYL(X, neg)                                                                            \
    SOFT_UNARYL(X, not)                                                                            \
    SOFT_UNARY(X, mul)                                                                             \
    SOFT_UNARY(X, imul)                                                                            \
    SOFT_UNARY(X, div) SOFT_UNARY(X, idiv) SOFT_RM3(X, imul2) SOFT_RM3(X, imul3)

/* CMP and TEST with the conditional jump that follows them, which stays an operation. */
#define SOFT_OPS_FUSED(X)                                                                          \
    SOFT_CC16(X, cmp_rr_32_jcc)                                                                    \
    SOFT_CC16(X, cmp_rr_64_jcc)                                                                    \
    SOFT_CC16(X, cmp_ri_8_jcc)                                                                     \
    SOFT_CC16(X, cmp_ri_32_jcc)                                                                    \
    SOFT_CC16(X, cmp_ri_64_jcc)                                                                    \
    SOFT_CC16(X, cmp_rm_64_jcc)                                                                    \
    SOFT_CC16(X, cmp_rm_32_jcc)                                                                    \
    SOFT_CC16(X, cmp_mi_8_jcc)                                                                     \
    SOFT_CC16(X, cmp_mi_32_jcc)                                                                    \
    SOFT_CC16(X, test_mi_8_jcc)                                                                    \
    SOFT_CC16(X, sub_ri_32_jcc)                                                                    \
    SOFT_CC16(X, add_ri_64_jcc)                                                                    \
    SOFT_CC16(X, test_rr_8_jcc)                                                                    \
    SOFT_CC16(X, test_rr_32_jcc)                                                                   \
    SOFT_CC16(X, test_rr_64_jcc)                                                                   \
    SOFT_CC16(X, test_ri_8_jcc)                                                                    \
    SOFT_CC16(X, dec_r_32_jcc)                                                                     \
    SOFT_CC16(X, sub_ri_64_jcc)

/* mov_rb and mov_br: mov_rm and mov_mr whose address has no index. */
#define SOFT_OPS_MOVE(X)                                                                           \
    X(mov_rb_32) X(mov_rb_64) X(mov_br_32) X(mov_br_64)                                            \
    X(zx8_16_r) X(zx8_16_m) X(zx8_r) X(zx8_m) X(zx16_r) X(zx16_m)                                  \
    X(sx8_16_r) X(sx8_16_m) X(sx8_32_r) X(sx8_32_m) X(sx8_64_r) X(sx8_64_m)                        \
    X(sx16_32_r) X(sx16_32_m) X(sx16_64_r) X(sx16_64_m) X(sx32_64_r) X(sx32_64_m)                  \
    SOFT_SIZES3(X, lea) X(address) X(address_16) X(address_32) X(address_segment)                                \
    SOFT_RM3(X, cmov) X(set_r) X(set_m)                                                            \
    X(bswap_16) X(bswap_32) X(bswap_64) SOFT_UNARY(X, xchg) SOFT_UNARY(X, cmpxchg)                             \
    SOFT_SIZES4(X, lock_cmpxchg_m) SOFT_UNARY(X, xadd) SOFT_SIZES4(X, lock_xadd_m)                 \
    X(cbw) X(cwde) X(cdqe) X(cwd) X(cdq) X(cqo)

#define SOFT_OPS_BITS(X)                                                                           \
    SOFT_BITS(X, bt) SOFT_BITSL(X, bts) SOFT_BITSL(X, btr) SOFT_BITSL(X, btc)                      \
    SOFT_RM3(X, bsf) SOFT_RM3(X, bsr) SOFT_RM3(X, tzcnt) SOFT_RM3(X, lzcnt) SOFT_RM3(X, popcnt)

/* Jumps come for instruction pointers of 16, 32 and 64 bits. */
#define SOFT_OPS_FLOW(X)                                                                           \
    SOFT_CC16(X, jcc64)                                                                            \
    SOFT_CC16(X, jcc32)                                                                            \
    SOFT_CC16(X, jcc16)                                                                            \
    X(jmp64) X(jmp32) X(jmp16) X(jmp_r) X(jmp_m) X(call) X(call_r) X(call_m) X(ret) X(ret_n)       \
    X(push_r) X(push_i) X(push_m) X(push_r_16) X(push_i_16) X(pop_r) X(pop_r_16) X(pop_m)          \
    X(leave) X(pushf) X(call_legacy) X(end) X(stop) X(stale)

#define SOFT_OPS_FLAGS(X) X(lahf) X(sahf) X(clc) X(stc) X(cmc) X(cld) X(std) X(nop)

#define SOFT_OPS_CALL(X) X(call_c) X(call_flags) X(call_end) X(raise)

#define SOFT_OPS(X)                                                                                \
    SOFT_OPS_ARITHMETIC(X)                                                                         \
    SOFT_OPS_SHIFT(X)                                                                              \
    SOFT_OPS_UNARY(X)                                                                              \
    SOFT_OPS_MOVE(X) SOFT_OPS_BITS(X) SOFT_OPS_FLOW(X) SOFT_OPS_FUSED(X) SOFT_OPS_FLAGS(X) SOFT_OPS_CALL(X)

#endif
