/* SPDX-License-Identifier: MIT */
/*
 * vex_list: the VEX instructions whose work one instruction of the host does (vex_stubs.c).
 *
 * X(name, map, pp, w, opcode, modrm, count, size0, size1, feature, kind, flags)
 *   map 1 0F, 2 0F 38, 3 0F 3A; pp 0 none, 1 66, 2 F3, 3 F2; w 0, 1 or IG
 *   modrm   of the stub: M operands first and memory, N memory only
 *   count   how many values its immediate can have; 1: it has none
 *   size0/1 bytes of the memory operand with VEX.L 0 and 1
 *   kind    INTEGER; FLOAT: looks at MXCSR and may raise #XM; FLAGS: results in the flags
 */
#ifndef VMM_SOFT_VEX_LIST_H
#define VMM_SOFT_VEX_LIST_H

/* Packed integers: 128 bits came with AVX, 256 bits with AVX2. Three operands, full width. */
#define VEX_INT3(X, name, map, opcode)                                                             \
    X(name, map, 1, IG, opcode, M, 1, 16, 32, AVX_AVX2, INTEGER, VEX_NDS)
#define VEX_INT2(X, name, map, opcode, flags)                                                      \
    X(name, map, 1, IG, opcode, N, 1, 16, 32, AVX_AVX2, INTEGER, flags)
#define VEX_SHIFT(X, name, opcode)                                                                 \
    X(name, 1, 1, IG, opcode, M, 1, 16, 16, AVX_AVX2, INTEGER, VEX_NDS)
#define VEX_WIDEN(X, name, opcode, size)                                                           \
    X(name, 2, 1, IG, opcode, N, 1, size, 2 * size, AVX_AVX2, INTEGER, 0)

#define VEX_INTEGERS_1(X)                                                                          \
    VEX_INT3(X, vpunpcklbw, 1, 0x60)                                                               \
    VEX_INT3(X, vpunpcklwd, 1, 0x61)                                                               \
    VEX_INT3(X, vpunpckldq, 1, 0x62)                                                               \
    VEX_INT3(X, vpacksswb, 1, 0x63)                                                                \
    VEX_INT3(X, vpcmpgtb, 1, 0x64)                                                                 \
    VEX_INT3(X, vpcmpgtw, 1, 0x65)                                                                 \
    VEX_INT3(X, vpcmpgtd, 1, 0x66)                                                                 \
    VEX_INT3(X, vpackuswb, 1, 0x67)                                                                \
    VEX_INT3(X, vpunpckhbw, 1, 0x68)                                                               \
    VEX_INT3(X, vpunpckhwd, 1, 0x69)                                                               \
    VEX_INT3(X, vpunpckhdq, 1, 0x6a)                                                               \
    VEX_INT3(X, vpackssdw, 1, 0x6b)                                                                \
    VEX_INT3(X, vpunpcklqdq, 1, 0x6c)                                                              \
    VEX_INT3(X, vpunpckhqdq, 1, 0x6d)                                                              \
    VEX_INT3(X, vpcmpeqb, 1, 0x74)                                                                 \
    VEX_INT3(X, vpcmpeqw, 1, 0x75)                                                                 \
    VEX_INT3(X, vpcmpeqd, 1, 0x76)                                                                 \
    VEX_SHIFT(X, vpsrlw, 0xd1)                                                                     \
    VEX_SHIFT(X, vpsrld, 0xd2)                                                                     \
    VEX_SHIFT(X, vpsrlq, 0xd3)                                                                     \
    VEX_INT3(X, vpaddq, 1, 0xd4)                                                                   \
    VEX_INT3(X, vpmullw, 1, 0xd5)                                                                  \
    VEX_INT3(X, vpsubusb, 1, 0xd8)                                                                 \
    VEX_INT3(X, vpsubusw, 1, 0xd9)                                                                 \
    VEX_INT3(X, vpminub, 1, 0xda)                                                                  \
    VEX_INT3(X, vpand, 1, 0xdb)                                                                    \
    VEX_INT3(X, vpaddusb, 1, 0xdc)                                                                 \
    VEX_INT3(X, vpaddusw, 1, 0xdd)                                                                 \
    VEX_INT3(X, vpmaxub, 1, 0xde)                                                                  \
    VEX_INT3(X, vpandn, 1, 0xdf)                                                                   \
    VEX_INT3(X, vpavgb, 1, 0xe0)                                                                   \
    VEX_SHIFT(X, vpsraw, 0xe1)                                                                     \
    VEX_SHIFT(X, vpsrad, 0xe2)                                                                     \
    VEX_INT3(X, vpavgw, 1, 0xe3)                                                                   \
    VEX_INT3(X, vpmulhuw, 1, 0xe4)                                                                 \
    VEX_INT3(X, vpmulhw, 1, 0xe5)                                                                  \
    VEX_INT3(X, vpsubsb, 1, 0xe8)                                                                  \
    VEX_INT3(X, vpsubsw, 1, 0xe9)                                                                  \
    VEX_INT3(X, vpminsw, 1, 0xea)                                                                  \
    VEX_INT3(X, vpor, 1, 0xeb)                                                                     \
    VEX_INT3(X, vpaddsb, 1, 0xec)                                                                  \
    VEX_INT3(X, vpaddsw, 1, 0xed)                                                                  \
    VEX_INT3(X, vpmaxsw, 1, 0xee)                                                                  \
    VEX_INT3(X, vpxor, 1, 0xef)                                                                    \
    VEX_SHIFT(X, vpsllw, 0xf1)                                                                     \
    VEX_SHIFT(X, vpslld, 0xf2)                                                                     \
    VEX_SHIFT(X, vpsllq, 0xf3)                                                                     \
    VEX_INT3(X, vpmuludq, 1, 0xf4)                                                                 \
    VEX_INT3(X, vpmaddwd, 1, 0xf5)                                                                 \
    VEX_INT3(X, vpsadbw, 1, 0xf6)                                                                  \
    VEX_INT3(X, vpsubb, 1, 0xf8)                                                                   \
    VEX_INT3(X, vpsubw, 1, 0xf9)                                                                   \
    VEX_INT3(X, vpsubd, 1, 0xfa)                                                                   \
    VEX_INT3(X, vpsubq, 1, 0xfb)                                                                   \
    VEX_INT3(X, vpaddb, 1, 0xfc)                                                                   \
    VEX_INT3(X, vpaddw, 1, 0xfd)                                                                   \
    VEX_INT3(X, vpaddd, 1, 0xfe)

#define VEX_INTEGERS_2(X)                                                                          \
    VEX_INT3(X, vpshufb, 2, 0x00)                                                                  \
    VEX_INT3(X, vphaddw, 2, 0x01)                                                                  \
    VEX_INT3(X, vphaddd, 2, 0x02)                                                                  \
    VEX_INT3(X, vphaddsw, 2, 0x03)                                                                 \
    VEX_INT3(X, vpmaddubsw, 2, 0x04)                                                               \
    VEX_INT3(X, vphsubw, 2, 0x05)                                                                  \
    VEX_INT3(X, vphsubd, 2, 0x06)                                                                  \
    VEX_INT3(X, vphsubsw, 2, 0x07)                                                                 \
    VEX_INT3(X, vpsignb, 2, 0x08)                                                                  \
    VEX_INT3(X, vpsignw, 2, 0x09)                                                                  \
    VEX_INT3(X, vpsignd, 2, 0x0a)                                                                  \
    VEX_INT3(X, vpmulhrsw, 2, 0x0b)                                                                \
    VEX_INT2(X, vpabsb, 2, 0x1c, 0)                                                                \
    VEX_INT2(X, vpabsw, 2, 0x1d, 0)                                                                \
    VEX_INT2(X, vpabsd, 2, 0x1e, 0)                                                                \
    VEX_WIDEN(X, vpmovsxbw, 0x20, 8)                                                               \
    VEX_WIDEN(X, vpmovsxbd, 0x21, 4)                                                               \
    VEX_WIDEN(X, vpmovsxbq, 0x22, 2)                                                               \
    VEX_WIDEN(X, vpmovsxwd, 0x23, 8)                                                               \
    VEX_WIDEN(X, vpmovsxwq, 0x24, 4)                                                               \
    VEX_WIDEN(X, vpmovsxdq, 0x25, 8)                                                               \
    VEX_INT3(X, vpmuldq, 2, 0x28)                                                                  \
    VEX_INT3(X, vpcmpeqq, 2, 0x29)                                                                 \
    VEX_INT3(X, vpackusdw, 2, 0x2b)                                                                \
    VEX_WIDEN(X, vpmovzxbw, 0x30, 8)                                                               \
    VEX_WIDEN(X, vpmovzxbd, 0x31, 4)                                                               \
    VEX_WIDEN(X, vpmovzxbq, 0x32, 2)                                                               \
    VEX_WIDEN(X, vpmovzxwd, 0x33, 8)                                                               \
    VEX_WIDEN(X, vpmovzxwq, 0x34, 4)                                                               \
    VEX_WIDEN(X, vpmovzxdq, 0x35, 8)                                                               \
    VEX_INT3(X, vpcmpgtq, 2, 0x37)                                                                 \
    VEX_INT3(X, vpminsb, 2, 0x38)                                                                  \
    VEX_INT3(X, vpminsd, 2, 0x39)                                                                  \
    VEX_INT3(X, vpminuw, 2, 0x3a)                                                                  \
    VEX_INT3(X, vpminud, 2, 0x3b)                                                                  \
    VEX_INT3(X, vpmaxsb, 2, 0x3c)                                                                  \
    VEX_INT3(X, vpmaxsd, 2, 0x3d)                                                                  \
    VEX_INT3(X, vpmaxuw, 2, 0x3e)                                                                  \
    VEX_INT3(X, vpmaxud, 2, 0x3f)                                                                  \
    VEX_INT3(X, vpmulld, 2, 0x40)                                                                  \
    VEX_INT2(X, vphminposuw, 2, 0x41, VEX_L0)

/* What AVX2 has besides: variable shifts, permutations across lanes, broadcasts. */
#define VEX_NEW3(X, name, w, opcode, flags)                                                        \
    X(name, 2, 1, w, opcode, M, 1, 16, 32, AVX2, INTEGER, VEX_NDS | flags)
#define VEX_BROADCAST(X, name, opcode, size)                                                       \
    X(name, 2, 1, 0, opcode, N, 1, size, size, AVX2, INTEGER, 0)
#define VEX_PERMUTE_Q(X, name, opcode)                                                             \
    X(name, 3, 1, 1, opcode, N, 256, 32, 32, AVX2, INTEGER, VEX_L1)

#define VEX_INTEGERS_AVX2(X)                                                                       \
    VEX_NEW3(X, vpermps, 0, 0x16, VEX_L1)                                                          \
    VEX_NEW3(X, vpermd, 0, 0x36, VEX_L1)                                                           \
    VEX_NEW3(X, vpsrlvd, 0, 0x45, 0)                                                               \
    VEX_NEW3(X, vpsrlvq, 1, 0x45, 0)                                                               \
    VEX_NEW3(X, vpsravd, 0, 0x46, 0)                                                               \
    VEX_NEW3(X, vpsllvd, 0, 0x47, 0)                                                               \
    VEX_NEW3(X, vpsllvq, 1, 0x47, 0)                                                               \
    VEX_BROADCAST(X, vpbroadcastd, 0x58, 4)                                                        \
    VEX_BROADCAST(X, vpbroadcastq, 0x59, 8)                                                        \
    VEX_BROADCAST(X, vpbroadcastb, 0x78, 1)                                                        \
    VEX_BROADCAST(X, vpbroadcastw, 0x79, 2)                                                        \
    X(vbroadcasti128, 2, 1, 0, 0x5a, N, 1, 16, 16, AVX2, INTEGER, VEX_L1 | VEX_MEMORY)             \
    VEX_PERMUTE_Q(X, vpermq, 0x00)                                                                 \
    VEX_PERMUTE_Q(X, vpermpd, 0x01)                                                                \
    X(vpblendd, 3, 1, 0, 0x02, M, 256, 16, 32, AVX2, INTEGER, VEX_NDS)                             \
    X(vinserti128, 3, 1, 0, 0x38, M, 2, 16, 16, AVX2, INTEGER, VEX_NDS | VEX_L1)                   \
    X(vperm2i128, 3, 1, 0, 0x46, M, 256, 32, 32, AVX2, INTEGER, VEX_NDS | VEX_L1)

/* Moves, shuffles and logic that came with AVX in both widths. */
#define VEX_AVX3(X, name, map, pp, opcode)                                                         \
    X(name, map, pp, IG, opcode, M, 1, 16, 32, AVX, INTEGER, VEX_NDS)
#define VEX_AVX2OP(X, name, pp, opcode, size)                                                      \
    X(name, 1, pp, IG, opcode, N, 1, size, 32, AVX, INTEGER, 0)
#define VEX_HALF(X, name, pp, opcode, flags)                                                       \
    X(name, 1, pp, IG, opcode, M, 1, 8, 8, AVX, INTEGER, VEX_NDS | VEX_L0 | flags)
#define VEX_MIXED(X, name, opcode, feature)                                                        \
    X(name, 3, 1, 0, opcode, BLEND, 1, 16, 32, feature, INTEGER, VEX_NDS | VEX_IS4)

#define VEX_MOVES(X)                                                                               \
    VEX_HALF(X, vmovlps, 0, 0x12, VEX_HIGH)                                                        \
    VEX_HALF(X, vmovlpd, 1, 0x12, VEX_MEMORY)                                                      \
    VEX_AVX2OP(X, vmovsldup, 2, 0x12, 16)                                                          \
    VEX_AVX2OP(X, vmovddup, 3, 0x12, 8)                                                            \
    VEX_AVX3(X, vunpcklps, 1, 0, 0x14)                                                             \
    VEX_AVX3(X, vunpcklpd, 1, 1, 0x14)                                                             \
    VEX_AVX3(X, vunpckhps, 1, 0, 0x15)                                                             \
    VEX_AVX3(X, vunpckhpd, 1, 1, 0x15)                                                             \
    VEX_HALF(X, vmovhps, 0, 0x16, 0)                                                               \
    VEX_HALF(X, vmovhpd, 1, 0x16, VEX_MEMORY)                                                      \
    VEX_AVX2OP(X, vmovshdup, 2, 0x16, 16)                                                          \
    VEX_AVX3(X, vandps, 1, 0, 0x54)                                                                \
    VEX_AVX3(X, vandpd, 1, 1, 0x54)                                                                \
    VEX_AVX3(X, vandnps, 1, 0, 0x55)                                                               \
    VEX_AVX3(X, vandnpd, 1, 1, 0x55)                                                               \
    VEX_AVX3(X, vorps, 1, 0, 0x56)                                                                 \
    VEX_AVX3(X, vorpd, 1, 1, 0x56)                                                                 \
    VEX_AVX3(X, vxorps, 1, 0, 0x57)                                                                \
    VEX_AVX3(X, vxorpd, 1, 1, 0x57)                                                                \
    X(vpinsrw, 1, 1, IG, 0xc4, M, 8, 2, 2, AVX, INTEGER, VEX_NDS | VEX_L0 | VEX_GENERAL)           \
    X(vpinsrb, 3, 1, IG, 0x20, M, 16, 1, 1, AVX, INTEGER, VEX_NDS | VEX_L0 | VEX_GENERAL)          \
    X(vpinsrd, 3, 1, 0, 0x22, M, 4, 4, 4, AVX, INTEGER, VEX_NDS | VEX_L0 | VEX_GENERAL)            \
    X(vpinsrq, 3, 1, 1, 0x22, M, 2, 8, 8, AVX, INTEGER, VEX_NDS | VEX_L0 | VEX_GENERAL | VEX_LONG) \
    X(vpermilps, 2, 1, 0, 0x0c, M, 1, 16, 32, AVX, INTEGER, VEX_NDS)                               \
    X(vpermilpd, 2, 1, 0, 0x0d, M, 1, 16, 32, AVX, INTEGER, VEX_NDS)                               \
    X(vbroadcastss, 2, 1, 0, 0x18, N, 1, 4, 4, AVX, INTEGER, VEX_REGISTER_AVX2)                    \
    X(vbroadcastsd, 2, 1, 0, 0x19, N, 1, 8, 8, AVX, INTEGER, VEX_L1 | VEX_REGISTER_AVX2)           \
    X(vbroadcastf128, 2, 1, 0, 0x1a, N, 1, 16, 16, AVX, INTEGER, VEX_L1 | VEX_MEMORY)              \
    VEX_MIXED(X, vblendvps, 0x4a, AVX)                                                             \
    VEX_MIXED(X, vblendvpd, 0x4b, AVX)                                                             \
    VEX_MIXED(X, vpblendvb, 0x4c, AVX_AVX2)

#define VEX_SHUFFLE2(X, name, pp) X(name, 1, pp, IG, 0x70, N, 256, 16, 32, AVX_AVX2, INTEGER, 0)
#define VEX_SELECT3(X, name, opcode, count, feature)                                               \
    X(name, 3, 1, IG, opcode, M, count, 16, 32, feature, INTEGER, VEX_NDS)

#define VEX_SHUFFLES(X)                                                                            \
    VEX_SHUFFLE2(X, vpshufd, 1)                                                                    \
    VEX_SHUFFLE2(X, vpshufhw, 2)                                                                   \
    VEX_SHUFFLE2(X, vpshuflw, 3)                                                                   \
    X(vshufps, 1, 0, IG, 0xc6, M, 256, 16, 32, AVX, INTEGER, VEX_NDS)                              \
    X(vshufpd, 1, 1, IG, 0xc6, M, 16, 16, 32, AVX, INTEGER, VEX_NDS)                               \
    X(vpermilps_i, 3, 1, 0, 0x04, N, 256, 16, 32, AVX, INTEGER, 0)                                 \
    X(vpermilpd_i, 3, 1, 0, 0x05, N, 16, 16, 32, AVX, INTEGER, 0)                                  \
    X(vperm2f128, 3, 1, 0, 0x06, M, 256, 32, 32, AVX, INTEGER, VEX_NDS | VEX_L1)                   \
    VEX_SELECT3(X, vblendps, 0x0c, 256, AVX)                                                       \
    VEX_SELECT3(X, vblendpd, 0x0d, 16, AVX)                                                        \
    VEX_SELECT3(X, vpblendw, 0x0e, 256, AVX_AVX2)                                                  \
    VEX_SELECT3(X, vpalignr, 0x0f, 256, AVX_AVX2)                                                  \
    X(vinsertf128, 3, 1, 0, 0x18, M, 2, 16, 16, AVX, INTEGER, VEX_NDS | VEX_L1)                    \
    X(vinsertps, 3, 1, IG, 0x21, M, 256, 4, 4, AVX, INTEGER, VEX_NDS | VEX_L0 | VEX_ELEMENT)       \
    VEX_SELECT3(X, vmpsadbw, 0x42, 64, AVX_AVX2)

/* Floating point: packed and scalar, singles and doubles. */
#define VEX_PACKED3(X, name, pp, opcode)                                                           \
    X(name, 1, pp, IG, opcode, M, 1, 16, 32, AVX, FLOAT, VEX_NDS)
#define VEX_PACKED2(X, name, pp, opcode, size0)                                                    \
    X(name, 1, pp, IG, opcode, N, 1, size0, 2 * size0, AVX, FLOAT, 0)
#define VEX_SCALAR3(X, name, pp, opcode, size)                                                     \
    X(name, 1, pp, IG, opcode, M, 1, size, size, AVX, FLOAT, VEX_NDS | VEX_LIG)
#define VEX_FLOAT4(X, name, opcode)                                                                \
    VEX_PACKED3(X, name##ps, 0, opcode)                                                            \
    VEX_PACKED3(X, name##pd, 1, opcode)                                                            \
    VEX_SCALAR3(X, name##ss, 2, opcode, 4)                                                         \
    VEX_SCALAR3(X, name##sd, 3, opcode, 8)
#define VEX_COMPARE(X, name, pp, size0, size1, flags)                                              \
    X(name, 1, pp, IG, 0xc2, M, 32, size0, size1, AVX, FLOAT, VEX_NDS | flags)
#define VEX_FROM_GENERAL(X, name, pp, w, size, flags)                                              \
    X(name, 1, pp, w, 0x2a, M, 1, size, size, AVX, FLOAT, VEX_NDS | VEX_LIG | VEX_GENERAL | flags)
#define VEX_ROUND(X, name, opcode, modrm, size0, size1, flags)                                     \
    X(name, 3, 1, IG, opcode, modrm, 16, size0, size1, AVX, FLOAT, flags)
#define VEX_TEST(X, name, w, opcode) X(name, 2, 1, w, opcode, N, 1, 16, 32, AVX, FLAGS, 0)

#define VEX_FLOATS(X)                                                                              \
    VEX_FROM_GENERAL(X, vcvtsi2ssl, 2, 0, 4, 0)                                                    \
    VEX_FROM_GENERAL(X, vcvtsi2ssq, 2, 1, 8, VEX_LONG)                                             \
    VEX_FROM_GENERAL(X, vcvtsi2sdl, 3, 0, 4, 0)                                                    \
    VEX_FROM_GENERAL(X, vcvtsi2sdq, 3, 1, 8, VEX_LONG)                                             \
    VEX_PACKED2(X, vsqrtps, 0, 0x51, 16)                                                           \
    VEX_PACKED2(X, vsqrtpd, 1, 0x51, 16)                                                           \
    VEX_SCALAR3(X, vsqrtss, 2, 0x51, 4)                                                            \
    VEX_SCALAR3(X, vsqrtsd, 3, 0x51, 8)                                                            \
    VEX_PACKED2(X, vrsqrtps, 0, 0x52, 16)                                                          \
    VEX_SCALAR3(X, vrsqrtss, 2, 0x52, 4)                                                           \
    VEX_PACKED2(X, vrcpps, 0, 0x53, 16)                                                            \
    VEX_SCALAR3(X, vrcpss, 2, 0x53, 4)                                                             \
    VEX_FLOAT4(X, vadd, 0x58)                                                                      \
    VEX_FLOAT4(X, vmul, 0x59)                                                                      \
    VEX_PACKED2(X, vcvtps2pd, 0, 0x5a, 8)                                                          \
    VEX_PACKED2(X, vcvtpd2ps, 1, 0x5a, 16)                                                         \
    VEX_SCALAR3(X, vcvtss2sd, 2, 0x5a, 4)                                                          \
    VEX_SCALAR3(X, vcvtsd2ss, 3, 0x5a, 8)                                                          \
    VEX_PACKED2(X, vcvtdq2ps, 0, 0x5b, 16)                                                         \
    VEX_PACKED2(X, vcvtps2dq, 1, 0x5b, 16)                                                         \
    VEX_PACKED2(X, vcvttps2dq, 2, 0x5b, 16)                                                        \
    VEX_FLOAT4(X, vsub, 0x5c)                                                                      \
    VEX_FLOAT4(X, vmin, 0x5d)                                                                      \
    VEX_FLOAT4(X, vdiv, 0x5e)                                                                      \
    VEX_FLOAT4(X, vmax, 0x5f)                                                                      \
    VEX_PACKED3(X, vhaddpd, 1, 0x7c)                                                               \
    VEX_PACKED3(X, vhaddps, 3, 0x7c)                                                               \
    VEX_PACKED3(X, vhsubpd, 1, 0x7d)                                                               \
    VEX_PACKED3(X, vhsubps, 3, 0x7d)                                                               \
    VEX_COMPARE(X, vcmpps, 0, 16, 32, 0)                                                           \
    VEX_COMPARE(X, vcmppd, 1, 16, 32, 0)                                                           \
    VEX_COMPARE(X, vcmpss, 2, 4, 4, VEX_LIG)                                                       \
    VEX_COMPARE(X, vcmpsd, 3, 8, 8, VEX_LIG)                                                       \
    VEX_PACKED3(X, vaddsubpd, 1, 0xd0)                                                             \
    VEX_PACKED3(X, vaddsubps, 3, 0xd0)                                                             \
    VEX_PACKED2(X, vcvttpd2dq, 1, 0xe6, 16)                                                        \
    VEX_PACKED2(X, vcvtdq2pd, 2, 0xe6, 8)                                                          \
    VEX_PACKED2(X, vcvtpd2dq, 3, 0xe6, 16)                                                         \
    VEX_TEST(X, vtestps, 0, 0x0e)                                                                  \
    VEX_TEST(X, vtestpd, 0, 0x0f)                                                                  \
    VEX_TEST(X, vptest, IG, 0x17)                                                                  \
    X(vcvtph2ps, 2, 1, 0, 0x13, N, 1, 8, 16, F16C, FLOAT, 0)                                       \
    VEX_ROUND(X, vroundps, 0x08, N, 16, 32, 0)                                                     \
    VEX_ROUND(X, vroundpd, 0x09, N, 16, 32, 0)                                                     \
    VEX_ROUND(X, vroundss, 0x0a, M, 4, 4, VEX_NDS | VEX_LIG)                                       \
    VEX_ROUND(X, vroundsd, 0x0b, M, 8, 8, VEX_NDS | VEX_LIG)                                       \
    X(vdpps, 3, 1, IG, 0x40, M, 256, 16, 32, AVX, FLOAT, VEX_NDS)                                  \
    X(vdppd, 3, 1, IG, 0x41, M, 256, 16, 16, AVX, FLOAT, VEX_NDS | VEX_L0)

/* The three orders of operands differ by 0x10 in the opcode. */
#define VEX_FMA_PACKED(X, name, opcode)                                                            \
    X(name##ps, 2, 1, 0, opcode, M, 1, 16, 32, FMA, FLOAT, VEX_NDS)                                \
    X(name##pd, 2, 1, 1, opcode, M, 1, 16, 32, FMA, FLOAT, VEX_NDS)
#define VEX_FMA_SCALAR(X, name, opcode)                                                            \
    X(name##ss, 2, 1, 0, opcode, M, 1, 4, 4, FMA, FLOAT, VEX_NDS | VEX_LIG)                        \
    X(name##sd, 2, 1, 1, opcode, M, 1, 8, 8, FMA, FLOAT, VEX_NDS | VEX_LIG)
#define VEX_FMA_ORDER(X, order, base)                                                              \
    VEX_FMA_PACKED(X, vfmaddsub##order, base + 0x6)                                                \
    VEX_FMA_PACKED(X, vfmsubadd##order, base + 0x7)                                                \
    VEX_FMA_PACKED(X, vfmadd##order, base + 0x8)                                                   \
    VEX_FMA_SCALAR(X, vfmadd##order, base + 0x9)                                                   \
    VEX_FMA_PACKED(X, vfmsub##order, base + 0xa)                                                   \
    VEX_FMA_SCALAR(X, vfmsub##order, base + 0xb)                                                   \
    VEX_FMA_PACKED(X, vfnmadd##order, base + 0xc)                                                  \
    VEX_FMA_SCALAR(X, vfnmadd##order, base + 0xd)                                                  \
    VEX_FMA_PACKED(X, vfnmsub##order, base + 0xe)                                                  \
    VEX_FMA_SCALAR(X, vfnmsub##order, base + 0xf)
#define VEX_FMA(X)                                                                                 \
    VEX_FMA_ORDER(X, 132, 0x90) VEX_FMA_ORDER(X, 213, 0xa0) VEX_FMA_ORDER(X, 231, 0xb0)

/* 128 bits only: the wide ones are features of their own. */
#define VEX_AES_ROUND(X, name, opcode)                                                             \
    X(name, 2, 1, IG, opcode, M, 1, 16, 16, AES, INTEGER, VEX_NDS | VEX_L0)
#define VEX_CRYPTO(X)                                                                              \
    X(vaesimc, 2, 1, IG, 0xdb, N, 1, 16, 16, AES, INTEGER, VEX_L0)                                 \
    VEX_AES_ROUND(X, vaesenc, 0xdc)                                                                \
    VEX_AES_ROUND(X, vaesenclast, 0xdd)                                                            \
    VEX_AES_ROUND(X, vaesdec, 0xde)                                                                \
    VEX_AES_ROUND(X, vaesdeclast, 0xdf)                                                            \
    X(vaeskeygenassist, 3, 1, IG, 0xdf, N, 256, 16, 16, AES, INTEGER, VEX_L0)                      \
    X(vpclmulqdq, 3, 1, IG, 0x44, M, 32, 16, 16, PCLMUL, INTEGER, VEX_NDS | VEX_L0)

#define VEX_STUBS(X)                                                                               \
    VEX_INTEGERS_1(X)                                                                              \
    VEX_INTEGERS_2(X)                                                                              \
    VEX_INTEGERS_AVX2(X) VEX_MOVES(X) VEX_SHUFFLES(X) VEX_FLOATS(X) VEX_FMA(X) VEX_CRYPTO(X)

#endif
