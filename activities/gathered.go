package activities

import "context"

// gathered does for many at once what each asks for: all that wait at a moment share one call.
type gathered[T, R any] struct {
	asks chan asked[T, R]
	do   func(ctx context.Context, items []T) ([]R, error) // one answer an item
}

type asked[T, R any] struct {
	item   T
	answer chan answered[R] // buffered
}

type answered[R any] struct {
	value R
	err   error
}

func newGathered[T, R any](do func(context.Context, []T) ([]R, error)) *gathered[T, R] {
	return &gathered[T, R]{asks: make(chan asked[T, R]), do: do}
}

// run answers until ctx ends or finished is closed.
func (g *gathered[T, R]) run(ctx context.Context, finished <-chan struct{}) {
	for {
		var waiting []asked[T, R]
		select {
		case <-ctx.Done():
			return
		case <-finished:
			return
		case a := <-g.asks:
			waiting = append(waiting, a)
		}
	gather:
		for {
			select {
			case a := <-g.asks:
				waiting = append(waiting, a)
			default:
				break gather
			}
		}
		items := make([]T, len(waiting))
		for i, a := range waiting {
			items[i] = a.item
		}
		values, err := g.do(ctx, items)
		for i, a := range waiting {
			answer := answered[R]{err: err}
			if err == nil {
				answer.value = values[i]
			}
			a.answer <- answer
		}
	}
}

// ask waits for the answer to one item.
func (g *gathered[T, R]) ask(ctx context.Context, item T) (R, error) {
	a := asked[T, R]{item, make(chan answered[R], 1)}
	var none R
	select {
	case g.asks <- a:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
	select {
	case answer := <-a.answer:
		return answer.value, answer.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}
