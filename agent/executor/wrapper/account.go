package wrapper

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// Account is a user of the host, and the group that its processes have.
type Account struct {
	Name     string
	Home     string
	UID, GID uint32
	Groups   []uint32
}

// Credential is what a process of the user's gets.
func (a *Account) Credential() *syscall.Credential {
	return &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.Groups}
}

func (a *Account) setEnvironment(env map[string]string) {
	env["USER"], env["LOGNAME"], env["HOME"] = a.Name, a.Name, a.Home
}

// FindUser finds what a configuration calls a user, "user" or "user:group", by names or numbers; the groups are the user's. It gives nil
// for the agent's own, and for an empty text; the error says why processes cannot run as the user.
func FindUser(text string) (*Account, error) {
	name, group, grouped := strings.Cut(text, ":")
	if text == "" {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if errors.As(err, new(user.UnknownUserError)) {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("this host has no user %q", name)
		}
	}
	if err != nil {
		return nil, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("the groups of user %s cannot be read: %w", name, err)
	}
	a := &Account{Name: u.Username, Home: u.HomeDir}
	if a.UID, err = number(u.Uid); err != nil {
		return nil, err
	}
	primary := u.Gid
	if grouped {
		g, err := user.LookupGroup(group)
		if errors.As(err, new(user.UnknownGroupError)) {
			if g, err = user.LookupGroupId(group); err != nil {
				return nil, fmt.Errorf("this host has no group %q", group)
			}
		}
		if err != nil {
			return nil, err
		}
		primary = g.Gid
	}
	if a.GID, err = number(primary); err != nil {
		return nil, err
	}
	for _, id := range ids {
		gid, err := number(id)
		if err != nil {
			return nil, err
		}
		a.Groups = append(a.Groups, gid)
	}
	switch own := os.Geteuid(); {
	case int(a.UID) == own && (!grouped || int(a.GID) == os.Getegid()):
		return nil, nil
	case own != 0:
		return nil, errors.New("the agent does not run as root, so it can become no other user than its own")
	}
	return a, nil
}

func number(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not the number of a user or group", id)
	}
	return uint32(n), nil
}
