// The tiles that conv_sm90 is compiled for, and who launches which: each list is compiled by a file of its own.
#pragma once

#include "kernels/conv_sm90_tile.h"
#include "kernels/launch.h"

namespace damoyolo::kernels::conv_sm90 {

constexpr char kName[] = "conv_sm90";

inline constexpr Tile kTilesAlone[] = {
    {64, 32, 64, 1},   {64, 64, 64, 1},   {64, 96, 64, 1},  {64, 128, 64, 1},  {128, 32, 16, 1},  {128, 32, 32, 1},
    {128, 64, 32, 1},  {128, 64, 64, 1},  {128, 96, 64, 1}, {128, 128, 64, 1}, {128, 160, 32, 1}, {128, 192, 64, 1},
    {128, 256, 64, 1}, {256, 128, 32, 1}, {64, 64, 32, 3},  {128, 64, 32, 3},  {128, 96, 32, 3},  {128, 128, 32, 3},
    {128, 160, 32, 3}, {128, 192, 32, 3}, {256, 64, 32, 3}, {256, 128, 32, 3},
};
// For two warpgroups in turn: those of which a multiprocessor holds one block, so that nobody else multiplies while it
// ends one. A thread has twice the sums here; with 160 channels they spill. Nearly all layers that have tiles enough
// for turns are of multiples of these 32, 64, 96 and 128 channels.
inline constexpr Tile kTilesInTurn[] = {
    {256, 64, 64, 1, 0, true}, {128, 128, 64, 1, 0, true}, {512, 32, 16, 3, 0, true},
    {128, 96, 32, 3, 0, true}, {128, 128, 32, 3, 0, true}, {256, 64, 32, 3, 0, true},
};
// For the backbones' maps of strides 2 to 8, and those of T of stride 16: wider ones no tile can hold. Their ends are
// two, and so are long: the more they gain from turns, where there is room for both warpgroups' tiles.
inline constexpr Tile kTilesOfPairs[] = {
    {256, 32, 16, 3, 32},       {128, 32, 16, 1, 192},        {128, 64, 32, 1, 64},         {64, 128, 64, 1, 128},
    {256, 128, 32, 1, 128},     {128, 128, 32, 3, 128},       {128, 192, 32, 1, 192},       {512, 32, 16, 3, 32, true},
    {128, 64, 32, 1, 96, true}, {128, 128, 32, 1, 128, true}, {128, 128, 32, 3, 128, true},
};

// The convolution has been checked, and the configuration is of one of these tiles.
void launch_alone(const Convolution& convolution, const ConvConfig& config, Stream stream);
void launch_in_turn(const Convolution& convolution, const ConvConfig& config, Stream stream);
void launch_pair(const Convolution& convolution, const ConvConfig& config, Stream stream);

}  // namespace damoyolo::kernels::conv_sm90
