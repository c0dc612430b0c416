// Package trace reads traces of LLM requests in the format that Mooncake published an hour
// of real Kimi traffic in (FAST'25, github.com/kvcache-ai/Mooncake), makes traces like it,
// and turns them into load.
//
// A trace is one JSON object per line, in the order of arrival:
//
//	{"timestamp": 3000, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}
//
//	timestamp      arrival in milliseconds since the beginning
//	input_length   tokens of the prompt
//	output_length  tokens of the answer
//	hash_ids       blocks of 512 prompt tokens, equal where prompts have a prefix in common;
//	               not used here, and may be missing
//
// In Mooncake's trace arrivals lie on a grid of 3 s. Played as they are they would come in
// bursts that never were: Arrivals spreads them at random inside of the grid.
//
// sample.jsonl is such a trace, made by Generate: a few hundred requests whose lengths have
// the quantiles of Mooncake's, and nothing else of it.
package trace
