package hub

import (
	"github.com/quicflow/quicflow/internal/auth"
	"github.com/quicflow/quicflow/internal/pki"
	"github.com/quicflow/quicflow/internal/release"
)

// CA is a certificate authority, which makes hub and agents known to each other. It is safe for concurrent use.
type CA = pki.CA

// ClientSession is what a Registry is told of a session that begins.
type ClientSession = release.ClientSession

// ClientEntry is what a Registry says to a ClientSession.
type ClientEntry = release.ClientEntry

// ClientFacts is what an agent says of its host.
type ClientFacts = release.ClientFacts

// ClientEnd is what a Registry is told of a session that ended.
type ClientEnd = release.ClientEnd

// Redemption is what an Enroller is told of an agent that shows a join token.
type Redemption = auth.Redemption

// What an Enroller refuses a join token with.
var (
	ErrTokenUnknown = auth.ErrTokenUnknown
	ErrTokenExpired = auth.ErrTokenExpired
	ErrTokenUsedUp  = auth.ErrTokenUsedUp
	ErrIDNotAllowed = auth.ErrIDNotAllowed
	ErrIDTaken      = auth.ErrIDTaken
)

// OpenCA loads the certificate authority of a directory (ca.crt, and ca.key with mode 0600), or makes one there if there is
// none. Whoever can read the key can be any agent, and the hub.
func OpenCA(dir string) (*CA, error) { return pki.LoadOrCreate(dir) }
