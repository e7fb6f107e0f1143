/* SPDX-License-Identifier: Apache-2.0 */
#include "board.h"
#include "link.h"
#include "pmeta_model.h"

int main(void)
{
    board_init();
    pmeta_reset();
    link_run();
    return 0;
}
