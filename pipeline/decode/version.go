package decode

// Version says which rows the bytes of a blob become. It rises when the same bytes
// would become other rows; a manifest carries it, so that a batch which is in doubt
// over an upgrade is not replayed by a decoder that reads it differently.
const Version = 1
