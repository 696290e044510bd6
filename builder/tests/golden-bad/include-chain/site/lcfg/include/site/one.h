#include <site/two.h>
