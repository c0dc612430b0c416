// Package kimisim is a Kimi simulator: a server on a real socket that speaks both wire
// formats (the OpenAI one and the Anthropic one), answers with generated text whose
// tokens can be counted exactly, breaks in every way a test asks for, and keeps a ledger
// of each token it put on the wire.
//
//	sim, err := kimisim.New(kimisim.Config{Keys: []string{"sk-fake-1"}})
//	if err != nil { … }
//	defer sim.Close()
//	// POST sim.OpenAIBase()+"/chat/completions", POST sim.AnthropicBase()+"/messages"
//	entry, err := sim.WaitClosed(resp.Header.Get("Msh-Request-Id"), time.Second)
//
// # Tokens
//
// Two rules, both exact and both simple enough to redo by hand.
//
// A prompt: each message costs Config.TemplateTokensPerMessage plus
// ceil(bytes of its text / Config.TokenizerRatio); a system prompt counts as a message
// without template tokens; tools cost ceil(bytes of their JSON / ratio); an image or
// video costs [TokensPerImage], its inline data nothing. The count never exceeds the
// bytes of the request body without inline image data plus TokensPerImage per image, so
// an upper bound made from bytes is sound.
//
// An answer: one token is a piece of text that ends with a space (the last piece of a
// text may lack it). [CountTokens] counts them in what a client received, be it content,
// reasoning or tool arguments. An event always carries whole tokens.
//
// # Behaviour
//
// A [Behavior] says how one request is answered. It comes from Config.Defaults, from the
// key ([Server.SetKeyBehavior]), from a script ([Server.Script], [Server.ScriptNext]) and
// from the request itself, the later one winning. In the request it is JSON, in the
// X-Sim header, in safety_identifier or metadata.user_id after "sim:", or in the last
// user message as [[sim:{…}]], so that it survives a proxy that rebuilds headers.
//
// # Independence
//
// The package shares no code with the scanner it is used to test. All methods of a
// Server may be called from any goroutine.
package kimisim
