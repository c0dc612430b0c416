package testenv

import (
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
)

// template is a database that is copied for tests.
type template struct {
	once sync.Once
	name string
	err  error
}

// template returns the name of the database that prepare has prepared, at the first call or an
// earlier one.
func (c *cluster) template(name string, prepare func(url string) error) (database string, err error) {
	c.mu.Lock()
	if c.templates == nil {
		c.templates = make(map[string]*template)
	}
	m, ok := c.templates[name]
	if !ok {
		m = &template{}
		c.templates[name] = m
	}
	c.mu.Unlock()
	m.once.Do(func() {
		m.err = fmt.Errorf("testenv: the test that was to prepare database %q ended meanwhile", name)
		m.name, m.err = c.prepare(prepare)
	})
	return m.name, m.err
}

func (c *cluster) prepare(prepare func(url string) error) (database string, err error) {
	database = "template_" + strings.ToLower(rand.Text())
	if _, err := psql(c.url("postgres"), "CREATE DATABASE "+database); err != nil {
		return "", err
	}
	if err := prepare(c.url(database)); err != nil {
		return "", fmt.Errorf("testenv: prepare a database: %w", err)
	}
	return database, nil
}
